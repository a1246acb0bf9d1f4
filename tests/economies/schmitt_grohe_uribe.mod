// Schmitt-Grohé and Uribe (2004), section 5.1: the neoclassical growth model
var c k A;
varexo e;
parameters beta delta alpha rho sig;
beta = .95; delta = 1; alpha = .3; rho = 0; sig = 2;
model;
  exp(c)^(-sig) = beta*exp(c(+1))^(-sig)*(alpha*exp(A(+1))*exp(k)^(alpha - 1) + 1 - delta);
  exp(c) + exp(k) - (1 - delta)*exp(k(-1)) = exp(A)*exp(k(-1))^alpha;
  A = rho*A(-1) + e;
end;
initval; c = -.9; k = -1.8; end;
shocks; var e; stderr 1; end;
