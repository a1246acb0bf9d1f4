// An and Schorfheide (2007), section 2: the exact equations; price adjustment is costly
var c p R y g z ygr;
varexo eg ez er;
parameters tau nu phi gbar pbar gamma beta psi1 psi2 rho_r rho_g rho_z;
tau = 2; nu = .1; phi = 50; gbar = 1/.85; pbar = 1.008; gamma = 1.005; beta = .9975; psi1 = 1.5; psi2 = .125;
rho_r = .75; rho_g = .95; rho_z = .9;
model;
  # Rbar = gamma*pbar/beta;
  # pot = (1 - nu)^(1/tau)*g;
  1 = beta*(c(+1)/c)^(-tau)/(gamma*z(+1))*R/p(+1);
  1 = phi*(p - pbar)*((1 - 1/(2*nu))*p + pbar/(2*nu)) - phi*beta*(c(+1)/c)^(-tau)*y(+1)/y*(p(+1) - pbar)*p(+1) 
      + (1/nu)*(1 - c^tau);
  y = c + (1 - 1/g)*y + phi/2*(p - pbar)^2*y;
  R = (Rbar*(p/pbar)^psi1*(y/pot)^psi2)^(1 - rho_r)*R(-1)^rho_r*exp(er);
  log(g) = (1 - rho_g)*log(gbar) + rho_g*log(g(-1)) + eg;
  log(z) = rho_z*log(z(-1)) + ez;
  ygr = log(y/y(-1)) + log(z);
end;
initval; c = .95; p = 1.008; R = 1.01; y = 1.1; g = 1.17; z = 1; end;
shocks; var eg; stderr .006; var ez; stderr .003; var er; stderr .002; end;
varobs ygr p R;
