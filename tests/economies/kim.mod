// Kim (2003): adjustment costs between sectors and over time
var c inv k q lam y a;
varexo e;
parameters alpha beta delta nu phi rho;
alpha = .36; beta = .98; delta = .04; nu = .5; phi = .7; rho = .95;
model;
  # s = alpha*beta*delta/(1 - beta + beta*delta);
  y = exp(a)*k(-1)^alpha;
  y = ((1 - s)*(c/(1 - s))^(1 + nu) + s*(inv/s)^(1 + nu))^(1/(1 + nu));
  k = (delta*(inv/delta)^(1 - phi) + (1 - delta)*k(-1)^(1 - phi))^(1/(1 - phi));
  1/c = lam*(c/(1 - s)/y)^nu;
  lam*(inv/s/y)^nu = q*(k*delta/inv)^phi;
  q = beta*(lam(+1)*alpha*y(+1)/k + q(+1)*(1 - delta)*(k(+1)/k)^phi);
  a = rho*a(-1) + e;
end;
initval; k = 10; inv = .4; y = 2; c = 1.6; q = .6; lam = .6; end;
shocks; var e; stderr .01; end;
