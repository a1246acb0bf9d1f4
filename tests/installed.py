"""`make installcheck`: the package as one who has no checkout meets it. It needs a network, or a folder of wheels that pip knows.

The wheel is built from the archive of sources and installed, without extras, into a fresh environment; in an empty folder a run is
trained there, and what it leaves is looked at. Then the notebook tools come, and a report of each lab runs from the copies that
`synthlab notebooks` makes. Every step says how long it took; the first that is not as it should be ends it."""
import argparse, csv, json, math, os, shutil, subprocess, sys, tempfile, time, venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
TINY = ["tracking.mode=disabled", "evaluation.n_boot=100"]
REPORTS = dict(
    train=dict(source="mock", epochs=1, overrides=[*TINY, "training.n_paths=8", "evaluation.n_paths=50", "evaluation.stride=24"]),
    emulate=dict(worlds=["nk"], n=60, model="small", epochs=1, leave_out=[], overrides=TINY[:1]),
    price_action=dict(source="mock", lookback=16, model="small", epochs=1, overrides=[*TINY, "training.stride=20"]),
    walk_forward=dict(source="panel.csv", targets=["xdm_ret_5d"], family="ridge", others=[], train_days=250, test_days=60, step_days=60, jobs=1, overrides=TINY),
    autoencode=dict(source="toy", n=200, n_signal=40, epochs=1, overrides=TINY))

def step(what, call):
    "Do it, and say how long it took."
    began = time.perf_counter()
    found = call()
    print(f"{time.perf_counter() - began:7.1f} s  {what}", flush=True)
    return found

def check(holds, why):
    if not holds: sys.exit(f"installed: {why}")

def panel(path, days=900, assets=6):
    "Bars of some assets that wander, for the lab whose own panel comes with an extra."
    from datetime import date, timedelta
    with open(path, "w", newline="") as f:
        out = csv.writer(f); out.writerow(["time", "asset", "open", "high", "low", "close", "volume"])
        for k in range(assets):
            day, price = date(2018, 1, 1), 50 + 10*k
            for t in range(days):
                day += timedelta(days=3 if day.weekday() == 4 else 1)
                old, price = price, price*math.exp(.01*math.sin(1.7*t + k) + .012*math.sin(.37*t*(k + 1)))
                out.writerow([day, "ABCDEFGH"[k], old, 1.01*max(old, price), .99*min(old, price), price, 1000 + 10*(t % 7)])

def run(words, folder, **more):
    "A command; what it said, or the end of everything."
    out = subprocess.run([str(w) for w in words], cwd=folder, capture_output=True, text=True, **more)
    check(out.returncode == 0, f"{' '.join(map(str, words))} ended with {out.returncode}\n{(out.stdout + out.stderr)[-3000:]}")
    return out.stdout + out.stderr

def size(folder): return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())/2**20

def main(folder):
    "All steps, in a folder that is empty."
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}      # no checkout on the path
    say = lambda *words, at: run(words, at, env=env)
    dist, home, work = folder/"dist", folder/"env", folder/"work"
    work.mkdir()
    step("the archive of sources", lambda: say(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", dist, at=ROOT))
    [sources] = dist.glob("*.tar.gz")
    step("the wheel, from it", lambda: say(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", dist, sources, at=folder))
    [wheel] = dist.glob("*.whl")
    print(f"           {sources.stat().st_size/2**20:.1f} MiB of sources, a wheel of {wheel.stat().st_size/2**20:.1f} MiB")
    step("an environment", lambda: venv.create(home, with_pip=True))
    bin = home/"bin"
    pip = bin/"python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", ROOT/"constraints.txt"
    step("the wheel in it, without extras", lambda: say(*pip, wheel, at=work))
    print(f"           {size(home):.0f} MiB")

    said = step("synthlab train training.epochs=2", lambda: say(bin/"synthlab", "train", "training.epochs=2", "tracking.mode=disabled", at=work))
    [made] = (work/"runs").glob("*_market_*")
    status, result = (json.loads((made/name).read_text()) for name in ("status.json", "result.json"))
    figures = sorted(p.stem for p in (made/"figures").glob("*.png"))
    check(status["status"] == "done" and result["crps"] > 0, f"{made} is {status['status']}")
    check(len(figures) >= 5, f"{made} keeps {len(figures)} figures")
    check(not (made/"report.html").exists() and "pip install" in said and f"synthlab report {made.relative_to(work)}" in said, f"no way to a report is named\n{said[-2000:]}")
    print(f"           {status['status']}, CRPS {result['crps']:.2f}, figures: {', '.join(figures)}")

    step("synthlab notebooks", lambda: say(bin/"synthlab", "notebooks", at=work))
    check({p.name for p in (work/"notebooks").glob("*.ipynb")} == {p.name for p in (ROOT/"nbs").glob("*.ipynb")}, "not every report was copied")
    step("the notebook tools", lambda: say(*pip, f"{wheel}[lab]", at=work))
    print(f"           {size(home):.0f} MiB")
    step("the report of that run", lambda: say(bin/"synthlab", "report", made, at=work))
    check((made/"report.html").exists(), f"{made} has no page")
    panel(work/"panel.csv")
    for name, given in REPORTS.items():
        words = [w for k, v in given.items() for w in ("-y", f"{k}: {json.dumps(v)}")]
        step(f"papermill notebooks/{name}.ipynb", lambda: say(bin/"papermill", "--no-progress-bar", "--log-level", "ERROR", f"notebooks/{name}.ipynb", f"{name}.out.ipynb", *words, at=work))
        step(f"synthlab report {name}.out.ipynb", lambda: say(bin/"synthlab", "report", f"{name}.out.ipynb", at=work))
    labs = [json.loads(p.read_text()) for p in (work/"runs").glob("*/status.json")]
    check(sorted(s["lab"] for s in labs if s["status"] == "done") == ["events", "macro", "market", "market", "quant", "signal"], f"runs: {labs}")
    print(say(bin/"synthlab", "runs", at=work))

if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--keep", metavar="DIR", type=Path, help="work in this folder, made anew, and leave it there (default: one that is removed)")
    keep = asked.parse_args().keep
    if keep: keep.mkdir(parents=True)           # one that is there is somebody's
    folder = (keep or Path(tempfile.mkdtemp(prefix="installed-"))).resolve()
    try: step("all of it", lambda: main(folder))
    finally:
        if not keep: shutil.rmtree(folder, ignore_errors=True)
