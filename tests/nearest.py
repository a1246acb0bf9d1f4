"""`make quick`: the tests nearest to what the working tree changes, as many as fit, and the names of those left out.

What changed is what differs from the last commit, or, where nothing does, what the last commit changed. A changed notebook's own
cells come first, with the check of its export; then the test files that import its module, then the notebooks that do, then
the rest by the number of imports between, and the site, which shows every notebook, last. Costs are those of `costs.json`, in CPU
seconds."""
import argparse, ast, json, re, subprocess, sys, time
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORKERS = 2
START, MARGIN = 20, 5       # seconds until the workers have imported and collected, and for what is still running at the end
UNKNOWN = 5.                # CPU seconds of a group that was never measured

def git(*args): return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]

def changed():
    "Paths that differ from the last commit, or those of the last commit."
    now = git("diff", "--name-only", "-z", "HEAD") + git("ls-files", "--others", "--exclude-standard", "-z")
    return now or git("diff-tree", "--root", "--no-commit-id", "--name-only", "-r", "-m", "-z", "HEAD")

MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in (ROOT/"synthlab").rglob("*.py")}

@cache
def cells(path):
    "The code of a file, or of each cell of a notebook."
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py": return [text]
    return ["".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "code"]

def code(path): return "\n".join(cells(path))

def parts(path):
    "Its syntax trees, a cell each; a cell that is not Python (`!ls`) imports nothing."
    for cell in cells(path):
        try: yield ast.parse(cell)
        except SyntaxError: pass

@cache
def imports(path):
    "The modules of the package that a file or a notebook imports, anywhere in it."
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in (n for tree in parts(path) for n in ast.walk(tree)):
        if isinstance(node, ast.Import): found |= {a.name for a in node.names}
        if isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            found |= {name} | {f"{name}.{a.name}" for a in node.names}
    return found & MODULES.keys()

@cache
def exports(notebook):
    "The module that a notebook writes, if any."
    name = re.search(r"^#\|\s*default_exp\s+(\S+)", code(notebook), re.M)
    return f"synthlab.{name[1]}" if name else None

def distances(sources):
    "How many imports lie between each module and the nearest of `sources`."
    far, front = dict.fromkeys(sources, 0), set(sources)
    while front:
        front = {m for m, p in MODULES.items() if m not in far and imports(p) & front}
        far |= dict.fromkeys(front, max(far.values()) + 1)
    return far

def notebooks():
    found = sorted((ROOT/"nbs").rglob("*.ipynb"))
    return [ROOT/"index.ipynb", *(p for p in found if not any(s.startswith(".") for s in p.relative_to(ROOT).parts))]

def files(): return sorted((ROOT/"tests").glob("test_*.py"))

def is_report(path): return path.parent == ROOT/"nbs"

def group(path):
    "The name by which tests/conftest.py knows the tests of a file or a notebook."
    return path.relative_to(ROOT).with_suffix("").as_posix() if path.suffix == ".ipynb" else path.stem

def near(paths):
    "Groups with their distance, nearest first: 0 is what changed itself, a half more for the files that test it."
    paths = {ROOT/p for p in paths}
    at = {p: m for m, p in MODULES.items()}
    far = distances({m for p in paths if (m := at.get(p) or (p.suffix == ".ipynb" and p.exists() and exports(p)))})
    if any("conf" in p.parts and p.suffix == ".yaml" for p in paths): far |= distances({"synthlab.experiments.config"})    # presets
    reach = lambda p: min((far[m] for m in imports(p) if m in far), default=None)
    shared = {p.stem for p in paths if p.parent == ROOT/"tests"} - {p.stem for p in files()}
    reports = {p.stem for p in paths if is_report(p)}
    out = {}
    for p in notebooks():
        if is_report(p): continue
        own = 0 if p in paths or far.get(exports(p)) == 0 else None
        out[p] = own if own is not None else None if reach(p) is None else 1 + reach(p)
    for p in files():
        uses = any(p.stem == f"test_{s}" or re.search(rf"\b(import|from) {s}\b", code(p)) for s in shared)
        uses |= any(re.search(rf'"{r}(\.ipynb)?"', code(p)) for r in reports)
        out[p] = 0 if p in paths else .5 if uses else None if reach(p) is None else .5 + reach(p)
    out = {p: d for p, d in out.items() if d is not None}
    site, builder = ROOT/"tests"/"test_site.py", any(p.parent == ROOT/"docs" for p in paths)
    pages = [p for p in paths if p.suffix == ".ipynb"]                  # each is a page, with all that the rest says of it
    if site in out or builder or pages: out[site] = 0 if site in paths or builder else max(out.values(), default=0) + 1
    return out

def chosen(groups, costs, seconds):
    "Which groups fit, nearest and then cheapest first, on so many workers in so many seconds; and which do not."
    free, kept, left = [seconds]*WORKERS, [], []
    for p in sorted(groups, key=lambda p: (groups[p], costs.get(group(p), UNKNOWN))):
        cost, most = costs.get(group(p), UNKNOWN), max(free)
        if cost > most: left.append(p); continue
        free[free.index(most)] -= cost
        kept.append(p)
    return kept, left

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=90, help="until the answer, by the clock")
    parser.add_argument("--list", action="store_true", help="say what would run, and run nothing")
    args, began = parser.parse_args(), time.monotonic()
    paths = changed()
    costs = json.loads((ROOT/"tests"/"costs.json").read_text(encoding="utf-8"))
    groups = near(paths)
    kept, left = chosen(groups, costs, args.seconds - START - MARGIN)
    cost = lambda some: sum(costs.get(group(p), UNKNOWN) for p in some)
    listed = lambda some: "".join(f"\n  {groups[p]:4.1f}  {cost([p]):6.1f}  {group(p)}" for p in some)
    print(f"changed: {', '.join(paths)}")
    print(f"near it: {len(groups)} groups of tests; {len(kept)} fit into {args.seconds:.0f} s, about {cost(kept):.0f} CPU seconds "
          f"(imports between, CPU seconds, name):{listed(kept)}", flush=True)
    touched = {group(ROOT/p) for p in paths if p.endswith(".ipynb") and (ROOT/p).exists()}
    sync = "tests/test_sync.py::"
    ids = [f"{sync}{test}[{name}]" for name in touched for test in ("test_notebook_is_clean", "test_saved_outputs_are_good")]
    if touched or any(p.startswith("synthlab/") for p in paths): ids.append(sync + "test_export_is_current")
    holding = {p.relative_to(ROOT).as_posix() if p.suffix == ".py" else "tests/test_notebooks.py" for p in kept}
    run = sorted(holding | set(ids))
    only = [f"--only={name}" for name in ["test_sync", *(group(p) for p in kept)]]
    until = began + args.seconds - MARGIN      # the clock is that of the machine, the same in every process
    spread = ["-n", str(WORKERS), "--dist", "loadgroup", "--no-loadscope-reorder", f"--until={until:.0f}"]
    code = 0
    if run and not args.list: code = subprocess.run([sys.executable, "-m", "pytest", *spread, *only, *run], cwd=ROOT).returncode
    print(f"left out: {len(left)} groups, about {cost(left):.0f} CPU seconds{listed(left)}")
    rest = len([p for p in notebooks() if not is_report(p)]) + len(files()) - len(groups)
    print(f"not near: {rest} groups\n{time.monotonic() - began:.0f} s by the clock")
    return code

if __name__ == "__main__": sys.exit(main())
