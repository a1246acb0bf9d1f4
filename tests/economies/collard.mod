// Collard (2001): two shocks that feed each other
var y, c, k, a, h, b;
varexo e, u;
parameters beta, rho, alpha, delta, theta, psi, tau;
alpha = .36; rho = .95; tau = .025; beta = .99; delta = .025; psi = 0; theta = 2.95;
model;
c*theta*h^(1 + psi) = (1 - alpha)*y;
k = beta*exp(b)*c/(exp(b(+1))*c(+1))*(exp(b(+1))*alpha*y(+1) + (1 - delta)*k);
y = exp(a)*k(-1)^alpha*h^(1 - alpha);
k = exp(b)*(y - c) + (1 - delta)*k(-1);
a = rho*a(-1) + tau*b(-1) + e;
b = tau*a(-1) + rho*b(-1) + u;
end;
initval; y = 1; c = .8; h = .3; k = 11; a = 0; b = 0; end;
shocks; var e; stderr .009; var u; stderr .009; end;
steady; check; stoch_simul(order=1);
