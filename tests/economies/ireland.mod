// Ireland (2004): technology shocks in the New Keynesian model
var x p g r y a e z;
varexo va ve vz vr;
parameters beta psi omega ax ap rp rg rx rho_a rho_e;
beta = .99; psi = .1; omega = .0617; ax = .0836; ap = .0001; rp = .3597; rg = .2536; rx = .0347; rho_a = .947; rho_e = .9625;
model(linear);
  x = ax*x(-1) + (1 - ax)*x(+1) - (r - p(+1)) + (1 - omega)*(1 - rho_a)*a;
  p = beta*(ap*p(-1) + (1 - ap)*p(+1)) + psi*x - e;
  x = y - omega*a;
  g = y - y(-1) + z;
  r - r(-1) = rp*p + rg*g + rx*x + vr;
  a = rho_a*a(-1) + va;
  e = rho_e*e(-1) + ve;
  z = vz;
end;
shocks; var va; stderr .0405; var ve; stderr .0012; var vz; stderr .0109; var vr; stderr .0031; end;
varobs g p r;
