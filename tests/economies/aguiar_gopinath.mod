// Aguiar and Gopinath (2007): shocks to the trend of an emerging economy
var c k l y b q uc g z;
varexo eg ez;
parameters alpha beta gamma sigma delta phi psi bbar mu rho_z rho_g;
alpha = .68; beta = .98; gamma = .36; sigma = 2; delta = .05; phi = 4; psi = .001; bbar = .05; mu = log(1.0066); rho_z = .95; rho_g = .01;
model;
  # bonds = beta*exp(mu*(gamma*(1 - sigma) - 1));         // the price of a bond at rest
  y = exp(z)*k(-1)^(1 - alpha)*(exp(g)*l)^alpha;
  c + exp(g)*k = y + (1 - delta)*k(-1) - phi/2*(exp(g)*k/k(-1) - exp(mu))^2*k(-1) - b(-1) + q*exp(g)*b;
  1/q = 1/bonds + psi*(exp(b - bbar) - 1);
  uc = gamma*c^(gamma*(1 - sigma) - 1)*(1 - l)^((1 - gamma)*(1 - sigma));
  (1 - gamma)/gamma*c/(1 - l) = alpha*y/l;
  uc*exp(g)*(1 + phi*(exp(g)*k/k(-1) - exp(mu))) = beta*exp(g*gamma*(1 - sigma))*uc(+1)*(1 - delta + (1 - alpha)*y(+1)/k
     + phi/2*((exp(g(+1))*k(+1)/k)^2 - exp(mu)^2));
  uc*exp(g)*q = beta*exp(g*gamma*(1 - sigma))*uc(+1);
  z = rho_z*z(-1) + ez;
  g = (1 - rho_g)*mu + rho_g*g(-1) + eg;
end;
initval; g = mu; q = .97; l = .35; y = .55; k = 2; c = .42; b = bbar; uc = 1.2; end;
shocks; var eg; stderr .02; var ez; stderr .005; end;
varobs y c b;
