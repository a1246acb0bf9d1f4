// Galí (2008), chapter 6: sticky prices and sticky wages
var gap pp pw w nat i nu a;
varexo ea enu;
parameters beta sigma phi alpha ep ew tp tw phi_p phi_y rho_nu rho_a;
beta = .99; sigma = 1; phi = 1; alpha = 1/3; ep = 6; ew = 6; tp = 2/3; tw = 3/4; phi_p = 1.5; phi_y = 0; rho_nu = .5; rho_a = .9;
model(linear);
# lp = (1 - tp)*(1 - beta*tp)/tp*(1 - alpha)/(1 - alpha + alpha*ep);
# lw = (1 - tw)*(1 - beta*tw)/(tw*(1 + ew*phi));
# psi = (1 + phi)/(sigma*(1 - alpha) + phi + alpha);
pp = beta*pp(+1) + alpha*lp/(1 - alpha)*gap + lp*w;
pw = beta*pw(+1) + lw*(sigma + phi/(1 - alpha))*gap - lw*w;
w = w(-1) + pw - pp - (nat - nat(-1));          // the gap of the real wage
nat = (1 - alpha*psi)/(1 - alpha)*a;
gap = gap(+1) - 1/sigma*(i - pp(+1) - sigma*psi*(a(+1) - a));
i = phi_p*pp + phi_y*gap + nu;
nu = rho_nu*nu(-1) + enu;
a = rho_a*a(-1) + ea;
end;
shocks; var ea = 1; var enu; stderr .25; end;
varobs gap pp i;
