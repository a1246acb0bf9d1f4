"The package and the README are what the notebooks say, and the notebooks are clean."
import filecmp, re, runpy, shutil, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import nbformat, pytest
from fastcore.nbio import nb2str, read_nb
from nbdev.clean import clean_nb
from nbdev.config import get_config
from nbdev.doclinks import nbglob

import synthlab
from synthlab.experiments.pages import prepared
from synthlab.experiments.reports import findings

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted([ROOT/"index.ipynb", *nbglob(get_config(ROOT).nbs_path, as_path=True)])

def name(path): return path.relative_to(ROOT).with_suffix("").as_posix()

def test_export_is_current(tmp_path):
    "Exporting a copy from nothing but notebooks gives the modules byte for byte, and no file more or less."
    for part in "nbs", "index.ipynb", "pyproject.toml", "synthlab/__init__.py":
        to = tmp_path/part; to.parent.mkdir(exist_ok=True)
        shutil.copytree(ROOT/part, to) if (ROOT/part).is_dir() else shutil.copy(ROOT/part, to)
    subprocess.run([sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export()"], cwd=tmp_path, check=True)
    files = lambda root: {p.relative_to(root).as_posix() for p in (root/"synthlab").rglob("*.py")}
    assert files(ROOT) == files(tmp_path), "run `make sync`, and remove modules whose notebook is gone"
    same, different, _ = filecmp.cmpfiles(ROOT, tmp_path, sorted(files(ROOT)), shallow=False)
    assert not different, "run `make sync`"

@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebook_is_clean(path):
    "Cleaning the notebook would change nothing."
    nb, cfg = read_nb(path), get_config(ROOT)
    clean_nb(nb, allowed_cell_metadata_keys=cfg.allowed_cell_metadata_keys, allowed_out_metadata_keys=cfg.allowed_out_metadata_keys)
    assert nb2str(nb) == path.read_text(encoding="utf-8"), "run `make sync`"

@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_saved_outputs_are_good(path):
    "No saved output is an error, a warning or a path of one machine; what draws or prints has been run."
    cells = [c for c in read_nb(path).cells if c.cell_type == "code"]
    bad = [o for c in cells for o in c.outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert not bad, "run `make outputs`"
    assert not [c.source for c in cells if "plt.show()" in c.source and not c.outputs], "figures are missing: run `make outputs`"
    texts = ["".join(o.get("text", "") or o.get("data", {}).get("text/plain", "")) for c in cells for o in c.outputs]
    assert not [t for t in texts if re.search(r"(/home/|/root/|/Users/)\w*", t)], "an output names someone's home folder"

@pytest.mark.parametrize("written", ["README.md", "CHANGELOG.md"])
def test_readme_is_current(written):
    "`README.md` says what `index.ipynb` says, and the changes what their page says."
    docs = runpy.run_path(str(ROOT/"docs/readme.py"))
    assert (ROOT/written).read_text(encoding="utf-8") == docs["markdown"](docs["WRITTEN"][written]), "run `make sync`"

PICTURES = runpy.run_path(str(ROOT/"docs/pictures.py"))

@pytest.mark.parametrize("picture", PICTURES["PICTURES"])
def test_the_readme_shows_what_the_reports_show(picture):
    "Its pictures are those of the committed reports, with a text instead; each number of a result stands in its report's conclusion."
    place = PICTURES["PICTURES"][picture]
    assert (ROOT/f"docs/pictures/{picture}.png").read_bytes() == PICTURES["picture"](*place), "run `make sync`"
    said = re.search(rf"!\[([^\]]{{40,}})\]\(docs/pictures/{picture}.png\)\n\n\*The honest result:\*((?:.|\n)+?)\n\n", (ROOT/"README.md").read_text())
    told = " ".join(then for then, _ in findings(read_nb(ROOT/f"nbs/{place[0]}.ipynb")))
    numbers = re.findall(r"-?\d[\d.]*\d", said[2].replace("S&P 500", "")) if said else []
    assert numbers and [n for n in numbers if not re.search(rf"(?<![\d.]){n}(?!\d|\.\d)", told)] == []

def test_version_is_current():
    "The installed version is the one in `settings.ini`."
    ini = ConfigParser(delimiters=["="]); ini.read(ROOT/"settings.ini", encoding="utf-8")
    assert synthlab.__version__ == ini["DEFAULT"]["version"], "run `make test` again: the package is reinstalled"
    assert f"version: {synthlab.__version__}\n" in (ROOT/"CITATION.cff").read_text()
    assert f"## {synthlab.__version__}" in (ROOT/"CHANGELOG.md").read_text()

REPORTS = ["train", "evaluate", "markets", "backtest", "tournament", "stylised_facts", "peers", "emulate", "estimate", "smets_wouters", "price_action", "walk_forward", "autoencode", "compare"]

@pytest.mark.parametrize("report", REPORTS)
def test_a_report_has_a_verdict(report):
    "Three sentences of its conclusion, and the figure of the one cell that is marked for it."
    notebook = nbformat.read(ROOT/f"nbs/{report}.ipynb", 4)
    [marked] = [c for c in notebook.cells if "headline" in c.metadata.get("tags", [])]
    _, front = prepared(notebook)
    assert len(front["sentences"]) == 3 and all(20 < len(s) < 310 for s in front["sentences"])
    assert front["figure"]["png"] == next(o["data"]["image/png"] for o in marked.outputs if "image/png" in o.get("data", {}))

@pytest.mark.parametrize("report", REPORTS)
def test_a_report_says_what_its_numbers_say(report):
    "What a committed report concluded is what is concluded today from the numbers that it shows."
    notebook = read_nb(ROOT/f"nbs/{report}.ipynb")
    found = findings(notebook)
    shown = [str(o.get("data", {}).get("text/markdown")) for c in notebook.cells for o in c.get("outputs", [])]
    assert found, f"{report} shows no numbers: run it anew"
    for then, now in found: assert then == now and then in "".join(shown), f"{report} is older than its conclusion: run it anew"
