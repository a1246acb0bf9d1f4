% Brock and Mirman (1972): logarithmic utility, capital that lasts a period
var c k z;
varexo e;
parameters alpha, beta, rho;
alpha = .33; beta = .95; rho = .8;
model;
  1/c = alpha*beta*exp(z(1))*k^(alpha - 1)/c(1);
  c + k = exp(z)*k(-1)^alpha;
  z = rho*z(-1) + e;
end;
initval; k = .2; c = .3; z = 0; end;
shocks; var e; stderr .01; end;
