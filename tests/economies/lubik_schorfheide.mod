// Lubik and Schorfheide (2007): a small open economy
var y p R de dq ys ps z;
varexo er eq ey ep ez;
parameters alpha tau beta kappa psi1 psi2 psi3 rho_R rho_q rho_y rho_p rho_z;
alpha = .2; tau = .5; beta = .995; kappa = .5; psi1 = 1.5; psi2 = .25; psi3 = .1; rho_R = .6; rho_q = .4; rho_y = .95; rho_p = .5; rho_z = .3;
model(linear);
  # lam = alpha*(2 - alpha)*(1 - tau);
  y = y(+1) - (tau + lam)*(R - p(+1)) - rho_z*z - alpha*(tau + lam)*dq(+1) + lam/tau*(ys(+1) - ys);
  p = beta*p(+1) + alpha*beta*dq(+1) - alpha*dq + kappa/(tau + lam)*(y + lam/tau*ys);
  p = de + (1 - alpha)*dq + ps;
  R = rho_R*R(-1) + (1 - rho_R)*(psi1*p + psi2*y + psi3*de) + er;
  dq = rho_q*dq(-1) + eq;
  ys = rho_y*ys(-1) + ey;
  ps = rho_p*ps(-1) + ep;
  z = rho_z*z(-1) + ez;
end;
shocks; var er; stderr .3; var eq; stderr 1; var ey; stderr 1; var ep; stderr .5; var ez; stderr .5; end;
