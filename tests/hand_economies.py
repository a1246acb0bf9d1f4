"""Thirteen published economies and Smets and Wouters' as an independent hand writes them: functions of complex numbers and steady states by formulas, or matrices entry by entry.
Their derivatives are complex steps, their solution SciPy's ordered generalised Schur decomposition; nothing of the package is used."""
from types import SimpleNamespace

import numpy as np
from scipy.linalg import ordqz
from scipy.optimize import brentq

log, exp = np.log, np.exp

def solved(F, G, H, M):
    "P and Q of E F z(t+1) + G z(t) + H z(t-1) + M e(t) = 0, if there is one stable solution; and the number of stable roots less that of variables."
    N = len(G)
    eye, zero = np.eye(N), np.zeros((N, N))
    step, now = np.block([[zero, eye], [-H, -G]]), np.block([[eye, zero], [zero, F]])
    _, _, alpha, beta, _, Z = ordqz(step, now, sort="iuc", output="complex")
    stable = int((abs(alpha) < abs(beta)).sum())
    if stable != N: return None, None, stable - N
    P = np.linalg.solve(Z[:N, :N].T, Z[N:, :N].T).T.real
    return P, -np.linalg.solve(F @ P + G, M), 0

def matrices(names, shocks, rest, f):
    "Derivatives at rest, by complex steps."
    N, S = len(names), len(shocks)
    point = np.concatenate([[rest.get(n, 0.) for n in names]]*3 + [np.zeros(S)]).astype(complex)
    def at(x): return f(*(SimpleNamespace(**dict(zip(names, x[i*N:(i + 1)*N]))) for i in range(3)), SimpleNamespace(**dict(zip(shocks, x[3*N:]))))
    assert np.abs(at(point)).max() < 1e-10, np.abs(at(point))
    J = np.stack([np.imag(at(point + 1e-30j*np.eye(3*N + S)[i]))/1e-30 for i in range(3*N + S)], 1)
    return J[:, :N], J[:, N:2*N], J[:, 2*N:3*N], J[:, 3*N:]

def gali3():
    beta, sigma, phi, alpha, eps, theta, rule, gap = .99, 1., 1., 1/3, 6., 2/3, 1.5, .125
    kappa = (1 - theta)*(1 - beta*theta)/theta*(1 - alpha)/(1 - alpha + alpha*eps)*(sigma + (phi + alpha)/(1 - alpha))
    ya = (1 + phi)/(sigma*(1 - alpha) + phi + alpha)
    def f(u, t, y, e): return [t.p - beta*u.p - kappa*t.gap, t.gap - u.gap + (t.i - u.p - t.rnat)/sigma, t.i - rule*t.p - gap*t.gap - t.nu, t.rnat + sigma*ya*(1 - .9)*t.a,
        t.nat - ya*t.a, t.y - t.gap - t.nat, t.y - t.a - (1 - alpha)*t.n, t.nu - .5*y.nu - e.enu, t.a - .9*y.a - e.ea]
    return "p gap nat y rnat i n nu a", "ea enu", {}, f

def gali6():
    beta, sigma, phi, alpha = .99, 1., 1., 1/3
    lp, lw = (1/3)*(1 - beta*2/3)/(2/3)*(2/3)/(2/3 + 6/3), .25*(1 - beta*.75)/(.75*7)
    ya = 2/(2/3 + 1 + 1/3)
    def f(u, t, y, e): return [t.pp - beta*u.pp - alpha*lp/(1 - alpha)*t.gap - lp*t.w, t.pw - beta*u.pw - lw*(sigma + phi/(1 - alpha))*t.gap + lw*t.w,
        t.w - y.w - t.pw + t.pp + t.nat - y.nat, t.nat - (1 - alpha*ya)/(1 - alpha)*t.a, t.gap - u.gap + t.i - u.pp - ya*(u.a - t.a), t.i - 1.5*t.pp - t.nu,
        t.nu - .5*y.nu - e.enu, t.a - .9*y.a - e.ea]
    return "gap pp pw w nat i nu a", "ea enu", {}, f

def hansen():
    al, be, de, A = .36, .99, .025, 2.86
    r = (al/(1/be - 1 + de))**(1/(1 - al))
    c = (1 - al)*r**al/A
    h = c/(r**al - de*r)
    rest = dict(c=c, h=h, k=r*h, inv=de*r*h, y=r**al*h)
    def f(u, t, y, e): return [t.c*be*(al*u.y/t.k + 1 - de)/u.c - 1, A*t.c*t.h - (1 - al)*t.y, t.y - exp(t.z)*y.k**al*t.h**(1 - al), t.y - t.c - t.inv, t.k - (1 - de)*y.k - t.inv, t.z - .95*y.z - e.e]
    return "c k h y inv z", "e", rest, f

def brock_mirman():
    al, be = .33, .95
    k = (al*be)**(1/(1 - al))
    def f(u, t, y, e): return [t.c*al*be*exp(u.z)*t.k**(al - 1) - u.c, t.c + t.k - exp(t.z)*y.k**al, t.z - .8*y.z - e.e]
    return "c k z", "e", dict(k=k, c=k**al - k), f

def kpr():
    al, b, de, ga, th = .42, .988, .025, 1.004, 3.5
    yk = (ga/b - 1 + de)/al
    cy = 1 - (ga - 1 + de)/yk
    n = (1 - al)/(th*cy + 1 - al)
    k = n*yk**(-1/(1 - al))
    rest = dict(n=n, k=k, y=yk*k, c=cy*yk*k, x=(1 - cy)*yk*k)
    def f(u, t, y, e): return [th*t.c*t.n - (1 - al)*t.y*(1 - t.n), ga*u.c/t.c - b*(al*exp(u.la)*(u.n/t.k)**(1 - al) + 1 - de), t.y - exp(t.la)*t.n**(1 - al)*y.k**al, ga*t.k - (1 - de)*y.k - t.x,
        t.y - t.c - t.x, t.la - .9*y.la - e.ea]
    return "y c n k x la", "ea", rest, f

def ireland():
    def f(u, t, y, e): return [t.x - .0836*y.x - .9164*u.x + t.r - u.p - .9383*.053*t.a, t.p - .99*(.0001*y.p + .9999*u.p) - .1*t.x + t.e, t.x - t.y + .0617*t.a, t.g - t.y + y.y - t.z,
        t.r - y.r - .3597*t.p - .2536*t.g - .0347*t.x - e.vr, t.a - .947*y.a - e.va, t.e - .9625*y.e - e.ve, t.z - e.vz]
    return "x p g r y a e z", "va ve vz vr", {}, f

def an_schorfheide():
    tau, nu, phi, pb, ga, be, r, gb = 2., .1, 50., 1.008, 1.005, .9975, .75, 1/.85
    c, R = (1 - nu)**(1/tau), ga*pb/be
    def f(u, t, y, e):
        m = (t.c/u.c)**tau
        return [be*m/(ga*u.z)*t.R/u.p - 1, (1 - t.c**tau)/nu + phi*(t.p - pb)*((2*nu - 1)*t.p + pb)/(2*nu) - phi*be*m*u.y/t.y*(u.p - pb)*u.p - 1, t.y/t.g - t.c - phi/2*(t.p - pb)**2*t.y,
            log(t.R) - r*log(y.R) - (1 - r)*(log(R) + 1.5*log(t.p/pb) + .125*log(t.y/(c*t.g))) - e.er, log(t.g/gb) - .95*log(y.g/gb) - e.eg, log(t.z) - .9*log(y.z) - e.ez, t.ygr - log(t.y/y.y*t.z)]
    return "c p R y g z ygr", "eg ez er", dict(c=c, p=pb, R=R, y=gb*c, g=gb, z=1.), f

def lubik_schorfheide():
    al, tau, be, ka, r = .2, .5, .995, .5, .6
    la = al*(2 - al)*(1 - tau)
    def f(u, t, y, e): return [t.y - u.y + (tau + la)*(t.R - u.p) + .3*t.z + al*(tau + la)*u.dq - la/tau*(u.ys - t.ys), t.p - be*(u.p + al*u.dq) + al*t.dq - ka/(tau + la)*(t.y + la/tau*t.ys),
        t.p - t.de - (1 - al)*t.dq - t.ps, t.R - r*y.R - (1 - r)*(1.5*t.p + .25*t.y + .1*t.de) - e.er, t.dq - .4*y.dq - e.eq, t.ys - .95*y.ys - e.ey, t.ps - .5*y.ps - e.ep, t.z - .3*y.z - e.ez]
    return "y p R de dq ys ps z", "er eq ey ep ez", {}, f

def clarida():
    def f(u, t, y, e): return [t.x - u.x + t.r - u.p - t.g, t.p - .99*u.p - .3*t.x - t.u, t.r - .79*y.r - .21*(2.15*u.p + .93*t.x) - e.er, t.g - .9*y.g - e.eg, t.u - .5*y.u - e.eu]
    return "x p r g u", "eg eu er", {}, f

def kim():
    al, be, de, nu, phi = .36, .98, .04, .5, .7
    s = be*de*al/(1 - be + be*de)
    k = (s/de)**(1/(1 - al))
    y0 = k**al
    rest = dict(c=(1 - s)*y0, inv=s*y0, k=k, y=y0, lam=1/((1 - s)*y0), q=1/((1 - s)*y0))
    def f(u, t, y, e): return [t.y - exp(t.a)*y.k**al, t.y**(1 + nu) - (1 - s)**-nu*t.c**(1 + nu) - s**-nu*t.inv**(1 + nu), t.k**(1 - phi) - de**phi*t.inv**(1 - phi) - (1 - de)*y.k**(1 - phi),
        1/t.c - t.lam*(t.c/((1 - s)*t.y))**nu, t.lam*(t.inv/(s*t.y))**nu - t.q*(de*t.k/t.inv)**phi, t.q - be*(u.lam*al*u.y/t.k + u.q*(1 - de)*(u.k/t.k)**phi), t.a - .95*y.a - e.e]
    return "c inv k q lam y a", "e", rest, f

def schmitt_grohe_uribe():
    al, be = .3, .95
    k = log(al*be)/(1 - al)
    def f(u, t, y, e): return [be*al*exp(2*(t.c - u.c) + u.A + (al - 1)*t.k) - 1, exp(t.c) + exp(t.k) - exp(t.A + al*y.k), t.A - e.e]
    return "c k A", "e", dict(k=k, c=log(1 - al*be) + al*k), f

def collard():
    al, be, de, th = .36, .99, .025, 2.95
    ky = al/(1/be - 1 + de)
    h = (1 - al)/(1 - de*ky)/th
    y0 = h*ky**(al/(1 - al))
    def f(u, t, y, e): return [th*t.c*t.h - (1 - al)*t.y, 1 - be*exp(t.b)*t.c/u.c*(al*u.y/t.k + exp(-u.b)*(1 - de)), t.y - exp(t.a)*y.k**al*t.h**(1 - al), t.k - exp(t.b)*(t.y - t.c) - (1 - de)*y.k,
        t.a - .95*y.a - .025*y.b - e.e, t.b - .025*y.a - .95*y.b - e.u]
    return "y c k a h b", "e u", dict(y=y0, k=ky*y0, c=(1 - de*ky)*y0, h=h), f

def aguiar_gopinath():
    al, be, ga, si, de, phi, psi, b, m = .68, .98, .36, 2., .05, 4., .001, .05, 1.0066
    q = be*m**(ga*(1 - si) - 1)
    yk = (1/q - 1 + de)/(1 - al)
    def off(l):
        k = m*l*yk**(-1/al)
        return ga*al*yk*k*(1 - l)/((1 - ga)*l) - (yk*k + (1 - de - m)*k - b + q*m*b)
    l = brentq(off, .05, .9, xtol=1e-15)
    k = m*l*yk**(-1/al)
    c = yk*k + (1 - de - m)*k - b + q*m*b
    rest = dict(c=c, k=k, l=l, y=yk*k, b=b, q=q, uc=ga*c**(ga*(1 - si) - 1)*(1 - l)**((1 - ga)*(1 - si)), g=log(m))
    def f(u, t, y, e):
        x, ahead, discount = exp(t.g)*t.k/y.k, exp(u.g)*u.k/t.k, be*exp((ga*(1 - si) - 1)*t.g)
        return [t.y - exp(t.z + al*t.g)*y.k**(1 - al)*t.l**al, t.c + x*y.k - t.y - (1 - de)*y.k + phi/2*(x - m)**2*y.k + y.b - t.q*exp(t.g)*t.b, 1/t.q - 1/q - psi*(exp(t.b - b) - 1),
            t.uc - ga*t.c**(ga*(1 - si) - 1)*(1 - t.l)**((1 - ga)*(1 - si)), (1 - ga)*t.c*t.l - ga*al*t.y*(1 - t.l), t.uc*(1 + phi*(x - m)) - discount*u.uc*(1 - de + (1 - al)*u.y/t.k + phi/2*(ahead**2 - m**2)),
            t.uc*t.q - discount*u.uc, t.z - .95*y.z - e.ez, t.g - .99*log(m) - .01*y.g - e.eg]
    return "c k l y b q uc g z", "eg ez", rest, f

BY_HAND = dict(gali3=gali3, gali6=gali6, hansen=hansen, brock_mirman=brock_mirman, kpr=kpr, ireland=ireland, an_schorfheide=an_schorfheide, lubik_schorfheide=lubik_schorfheide, clarida=clarida, kim=kim,
               schmitt_grohe_uribe=schmitt_grohe_uribe, collard=collard, aguiar_gopinath=aguiar_gopinath)

SW = "dy dinfl drate dc dinve dw hours y c inve k ks z q rk w l mup muw infl r yf cf invef kf ksf zf qf rkf wf lf rf a risk g special policy eprice ewage nprice nwage".split()
SW_SHOCKS = "ea erisk eg especial epolicy epricem ewagem".split()

def smets_wouters(phi=5.48, sc=1.39, h=.71, xw=.73, sl=1.92, xp=.65, iw=.59, ip=.22, psi=.54, Phi=1.61, rpi=2.03, rho=.81, ry=.08, rdy=.22, beta=.16, gamma=.43, al=.19,
                  rhos=(.95, .18, .97, .71, .12, .9, .97), mup=.74, muw=.88, rga=.52, sd=(.45, .24, .52, .45, .24, .14, .24)):
    "F, G, H, M of the model, entry by entry; shocks of one standard deviation."
    g, b, de = 1 + gamma/100, 1/(1 + beta/100), .025
    bb, hg = b*g**(1 - sc), h/g
    rk = g**sc/b - 1 + de
    w = (al**al*(1 - al)**(1 - al)/(Phi*rk**al))**(1/(1 - al))
    ky = Phi*((1 - al)/al*rk/w)**(al - 1)
    iy = (g - 1 + de)*ky
    cy = .82 - iy
    wlc = (1 - al)/al*rk*ky/cy/1.5
    c1, c2, c3 = hg/(1 + hg), (sc - 1)*wlc/(sc*(1 + hg)), (1 - hg)/(sc*(1 + hg))
    i1, q1, k1 = 1/(1 + bb), (1 - de)/(rk + 1 - de), (1 - de)/g
    k2 = (1 - k1)*(1 + bb)*g**2*phi
    pp = 1/(1 + bb*ip)
    sp, sw = pp*(1 - bb*xp)*(1 - xp)/(xp*(10*(Phi - 1) + 1)), i1*(1 - bb*xw)*(1 - xw)/(xw*6)
    at, F, G, H, M = {n: i for i, n in enumerate(SW)}, *(np.zeros((41, 41)) for _ in range(3)), np.zeros((41, 7))
    row = iter(range(41))
    def put(now, ahead=(), before=(), shock=()):
        r = next(row)
        for X, entries in ((F, ahead), (G, now), (H, before)):
            for name, value in dict(entries).items(): X[r, at[name]] = value
        for name, value in dict(shock).items(): M[r, SW_SHOCKS.index(name)] = value*sd[SW_SHOCKS.index(name)]
    for s, rate in (("", {}), ("f", {})):
        n = lambda name: name + s
        put({n("y"): 1, n("c"): -cy, n("inve"): -iy, n("z"): -rk*ky, "g": -1})
        real = {"r": 1} if not s else {"rf": 1}
        infl = {"infl": 1} if not s else {}
        put({n("c"): 1, n("l"): -c2, "risk": -1} | {k: c3*v for k, v in real.items()}, {n("c"): c1 - 1, n("l"): c2} | {k: -c3*v for k, v in infl.items()}, {n("c"): -c1})
        put({n("inve"): 1, n("q"): -i1/(g**2*phi), "special": -1}, {n("inve"): i1 - 1}, {n("inve"): -i1})
        put({n("q"): 1, "risk": -1/c3} | real, {n("q"): -q1, n("rk"): q1 - 1} | {k: -v for k, v in infl.items()})
        put({n("y"): 1, n("ks"): -Phi*al, n("l"): -Phi*(1 - al), "a": -Phi})
        put({n("ks"): 1, n("z"): -1}, before={n("k"): -1})
        put({n("z"): 1, n("rk"): -(1 - psi)/psi})
        put({n("k"): 1, n("inve"): k1 - 1, "special": -k2}, before={n("k"): -k1})
        put({n("rk"): 1, n("ks"): 1, n("l"): -1, n("w"): -1})
    put({"wf": 1, "ksf": -al, "lf": al, "a": -1})
    put({"wf": 1, "lf": -sl, "cf": -1/(1 - hg)}, before={"cf": hg/(1 - hg)})
    put({"mup": 1, "ks": -al, "l": al, "a": -1, "w": 1})
    put({"infl": 1, "mup": sp, "eprice": -1}, {"infl": -bb*pp}, {"infl": -ip*pp})
    put({"muw": 1, "w": -1, "l": sl, "c": 1/(1 - hg)}, before={"c": -hg/(1 - hg)})
    put({"w": 1, "infl": i1*(1 + bb*iw), "muw": sw, "ewage": -1}, {"w": i1 - 1, "infl": i1 - 1}, {"w": -i1, "infl": -i1*iw})
    put({"r": 1, "infl": -(1 - rho)*rpi, "y": -(1 - rho)*ry - rdy, "yf": (1 - rho)*ry + rdy, "policy": -1}, before={"r": -rho, "y": rdy, "yf": -rdy})
    for name, p, e in zip(("a", "risk", "g", "special", "policy"), rhos, SW_SHOCKS): put({name: 1}, before={name: -p}, shock={e: -1} | ({"ea": -rga} if name == "g" else {}))
    for name, news, p, m, e in (("eprice", "nprice", rhos[5], mup, "epricem"), ("ewage", "nwage", rhos[6], muw, "ewagem")):
        put({name: 1, news: -1}, before={name: -p, news: m})
        put({news: 1}, shock={e: -1})
    for seen, name in (("dy", "y"), ("dc", "c"), ("dinve", "inve"), ("dw", "w")): put({seen: 1, name: -1}, before={name: 1})
    for seen, name in (("dinfl", "infl"), ("drate", "r"), ("hours", "l")): put({seen: 1, name: -1})
    assert next(row, None) is None
    return F, G, H, M
