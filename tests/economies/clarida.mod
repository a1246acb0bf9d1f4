// Clarida, Galí and Gertler (1999, 2000): a rule that answers to what is expected
var x p r g u;
varexo eg eu er;
parameters beta lambda sigma rho gp gx mu rhou;
beta = .99; lambda = .3; sigma = 1; rho = .79; gp = 2.15; gx = .93; mu = .9; rhou = .5;
model(linear);
  x = x(+1) - (r - p(+1))/sigma + g;
  p = beta*p(+1) + lambda*x + u;
  r = rho*r(-1) + (1 - rho)*(gp*p(+1) + gx*x) + er;
  g = mu*g(-1) + eg;
  u = rhou*u(-1) + eu;
end;
shocks; var eg; stderr .1; var eu; stderr .1; var er; stderr .25; end;
