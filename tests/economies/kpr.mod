// King, Plosser and Rebelo (1988): growth, hours and capital
var y c n k x la;
varexo ea;
parameters alpha b delta gamma theta rho;
alpha = .42; b = .988; delta = .025; gamma = 1.004; theta = 3.5; rho = .9;
model;
  theta*c/(1 - n) = (1 - alpha)*y/n;
  gamma*c(+1) = b*c*(alpha*y(+1)/k + 1 - delta);
  y = exp(la)*n^(1 - alpha)*k(-1)^alpha;
  gamma*k = (1 - delta)*k(-1) + x;
  y = c + x;
  la = rho*la(-1) + ea;
end;
initval; y = 1; c = .7; n = .2; k = 10; x = .3; end;
shocks; var ea; stderr .01; end;
