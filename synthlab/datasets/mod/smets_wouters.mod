// Smets and Wouters (2007), "Shocks and frictions in US business cycles: a Bayesian DSGE approach",
// American Economic Review 97(3), 586-606: the log-linear model of section I, its priors and the mode of its posterior
// (tables 1A and 1B). All variables in percent from a balanced growth path, rates and growth in percent a quarter.
//
// Two of the seven shocks are scaled as in the authors' own programs, and their sizes in table 1B are of that scale:
// `risk` is the paper's risk premium times -c3, so that it enters consumption as it stands; `special` enters investment
// as it stands. What is written here is otherwise the paper; its equation (8) for capital keeps the factor
// (1 + beta*gamma^(1 - sigma_c)), which those programs lack.

var dy (long_name='output') dinfl (long_name='inflation') drate (long_name='rate')   // what is observed, with
    dc dinve dw hours                                                                // growth of consumption, investment, wages
    y c inve k ks z q rk w l mup muw infl r                                          // sticky prices and wages
    yf cf invef kf ksf zf qf rkf wf lf rf                                            // were prices and wages flexible
    a risk g special policy eprice ewage nprice nwage;                               // shocks

varexo ea erisk eg especial epolicy epricem ewagem;

parameters
    delta lambda_w gy kimball_p kimball_w                                            // fixed
    phi sigma_c h xi_w sigma_l xi_p iota_w iota_p psi Phi r_pi rho r_y r_dy pibar betabar lbar gammabar alpha
    rho_a rho_b rho_g rho_i rho_r rho_p rho_w mu_p mu_w rho_ga;

delta = .025; lambda_w = 1.5; gy = .18; kimball_p = 10; kimball_w = 10;

phi = 5.48; sigma_c = 1.39; h = .71; xi_w = .73; sigma_l = 1.92; xi_p = .65; iota_w = .59; iota_p = .22; psi = .54;
Phi = 1.61; r_pi = 2.03; rho = .81; r_y = .08; r_dy = .22; pibar = .81; betabar = .16; lbar = -.1; gammabar = .43;
alpha = .19; rho_a = .95; rho_b = .18; rho_g = .97; rho_i = .71; rho_r = .12; rho_p = .90; rho_w = .97; mu_p = .74;
mu_w = .88; rho_ga = .52;

model(linear);
  // steady state: growth, discount, rental rate, wage, and shares of output
  # gamma = 1 + gammabar/100;
  # beta = 1/(1 + betabar/100);
  # bg = beta*gamma^(1 - sigma_c);                  // discount factor of growing households
  # habit = h/gamma;
  # rental = gamma^sigma_c/beta - (1 - delta);
  # wage = (alpha^alpha*(1 - alpha)^(1 - alpha)/(Phi*rental^alpha))^(1/(1 - alpha));
  # keep = (1 - delta)/gamma;
  # labour_capital = (1 - alpha)/alpha*rental/wage;
  # ky = Phi*labour_capital^(alpha - 1);
  # iy = (gamma - 1 + delta)*ky;
  # cy = 1 - gy - iy;
  # zy = rental*ky;
  # wl_c = (1 - alpha)/alpha*rental*ky/cy/lambda_w;
  # c1 = habit/(1 + habit);
  # c2 = (sigma_c - 1)*wl_c/(sigma_c*(1 + habit));
  # c3 = (1 - habit)/(sigma_c*(1 + habit));
  # i1 = 1/(1 + bg);
  # curve = gamma^2*phi;
  # q1 = (1 - delta)/(rental + 1 - delta);
  # k2 = (1 - keep)*(1 + bg)*curve;
  # slope_p = (1 - bg*xi_p)*(1 - xi_p)/(xi_p*((Phi - 1)*kimball_p + 1))/(1 + bg*iota_p);
  # slope_w = (1 - bg*xi_w)*(1 - xi_w)/(xi_w*((lambda_w - 1)*kimball_w + 1))/(1 + bg);

  [name='resources'] y = cy*c + iy*inve + zy*z + g;
  [name='consumption'] c = c1*c(-1) + (1 - c1)*c(+1) + c2*(l - l(+1)) - c3*(r - infl(+1)) + risk;
  [name='investment'] inve = i1*inve(-1) + (1 - i1)*inve(+1) + i1/curve*q + special;
  [name='value of capital'] q = q1*q(+1) + (1 - q1)*rk(+1) - (r - infl(+1)) + risk/c3;
  [name='production'] y = Phi*(alpha*ks + (1 - alpha)*l + a);
  [name='capital services'] ks = k(-1) + z;
  [name='utilisation'] z = (1 - psi)/psi*rk;
  [name='capital'] k = keep*k(-1) + (1 - keep)*inve + k2*special;
  [name='price markup'] mup = alpha*(ks - l) + a - w;
  [name='prices'] infl = iota_p/(1 + bg*iota_p)*infl(-1) + bg/(1 + bg*iota_p)*infl(+1) - slope_p*mup + eprice;
  [name='rental rate'] rk = -(ks - l) + w;
  [name='wage markup'] muw = w - (sigma_l*l + (c - habit*c(-1))/(1 - habit));
  [name='wages'] w = i1*w(-1) + (1 - i1)*(w(+1) + infl(+1)) - i1*(1 + bg*iota_w)*infl + i1*iota_w*infl(-1)
                     - slope_w*muw + ewage;
  [name='policy'] r = rho*r(-1) + (1 - rho)*(r_pi*infl + r_y*(y - yf)) + r_dy*(y - yf - (y(-1) - yf(-1))) + policy;

  yf = cy*cf + iy*invef + zy*zf + g;
  cf = c1*cf(-1) + (1 - c1)*cf(+1) + c2*(lf - lf(+1)) - c3*rf + risk;
  invef = i1*invef(-1) + (1 - i1)*invef(+1) + i1/curve*qf + special;
  qf = q1*qf(+1) + (1 - q1)*rkf(+1) - rf + risk/c3;
  yf = Phi*(alpha*ksf + (1 - alpha)*lf + a);
  ksf = kf(-1) + zf;
  zf = (1 - psi)/psi*rkf;
  kf = keep*kf(-1) + (1 - keep)*invef + k2*special;
  wf = alpha*(ksf - lf) + a;
  rkf = -(ksf - lf) + wf;
  wf = sigma_l*lf + (cf - habit*cf(-1))/(1 - habit);

  a = rho_a*a(-1) + ea;
  risk = rho_b*risk(-1) + erisk;
  g = rho_g*g(-1) + eg + rho_ga*ea;
  special = rho_i*special(-1) + especial;
  policy = rho_r*policy(-1) + epolicy;
  eprice = rho_p*eprice(-1) + nprice - mu_p*nprice(-1);
  nprice = epricem;
  ewage = rho_w*ewage(-1) + nwage - mu_w*nwage(-1);
  nwage = ewagem;

  dy = y - y(-1) + gammabar;
  dc = c - c(-1) + gammabar;
  dinve = inve - inve(-1) + gammabar;
  dw = w - w(-1) + gammabar;
  hours = l + lbar;
  dinfl = infl + pibar;
  drate = r + 100*((1 + pibar/100)*gamma^sigma_c/beta - 1);
end;

shocks;
  var ea; stderr .45;
  var erisk; stderr .24;
  var eg; stderr .52;
  var especial; stderr .45;
  var epolicy; stderr .24;
  var epricem; stderr .14;
  var ewagem; stderr .24;
end;

estimated_params;
  stderr ea, inv_gamma_pdf, .1, 2;
  stderr erisk, inv_gamma_pdf, .1, 2;
  stderr eg, inv_gamma_pdf, .1, 2;
  stderr especial, inv_gamma_pdf, .1, 2;
  stderr epolicy, inv_gamma_pdf, .1, 2;
  stderr epricem, inv_gamma_pdf, .1, 2;
  stderr ewagem, inv_gamma_pdf, .1, 2;
  rho_a, beta_pdf, .5, .2;
  rho_b, beta_pdf, .5, .2;
  rho_g, beta_pdf, .5, .2;
  rho_i, beta_pdf, .5, .2;
  rho_r, beta_pdf, .5, .2;
  rho_p, beta_pdf, .5, .2;
  rho_w, beta_pdf, .5, .2;
  mu_p, beta_pdf, .5, .2;
  mu_w, beta_pdf, .5, .2;
  rho_ga, normal_pdf, .5, .25;
  phi, normal_pdf, 4, 1.5;
  sigma_c, normal_pdf, 1.5, .375;
  h, beta_pdf, .7, .1;
  xi_w, beta_pdf, .5, .1;
  sigma_l, normal_pdf, 2, .75;
  xi_p, beta_pdf, .5, .1;
  iota_w, beta_pdf, .5, .15;
  iota_p, beta_pdf, .5, .15;
  psi, beta_pdf, .5, .15;
  Phi, normal_pdf, 1.25, .125;
  r_pi, normal_pdf, 1.5, .25;
  rho, beta_pdf, .75, .1;
  r_y, normal_pdf, .125, .05;
  r_dy, normal_pdf, .125, .05;
  pibar, gamma_pdf, .625, .1;
  betabar, gamma_pdf, .25, .1;
  lbar, normal_pdf, 0, 2;
  gammabar, normal_pdf, .4, .1;
  alpha, normal_pdf, .3, .05;
end;

varobs dy dc dinve hours dinfl dw drate;
