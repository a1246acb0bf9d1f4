"""What `make lab` tells JupyterLab: notebooks are saved clean, and a report that is run in place leaves the checkout
as it was.

The outputs of a report that are committed are a run of the size stated in them. Whoever runs it again in JupyterLab
finds the new outputs in `runs/NAME.ipynb`, where `make train` leaves them, too; what is written into its cells is
saved as always."""
import copy, json, os
from pathlib import Path
from nbdev.clean import clean_jupyter

ROOT = Path(__file__).resolve().parent.parent

def committed(path: Path) -> dict[str, list]:
    "The outputs of a notebook by the ids of its cells."
    if not path.exists(): return {}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {c["id"]: c["outputs"] for c in cells if c["cell_type"] == "code"}

def joined(value):
    "Outputs, however their lines are kept: lists of lines as one text."
    if isinstance(value, dict): return {k: joined(v) for k, v in value.items()}
    if not isinstance(value, list): return value
    return "".join(value) if value and all(isinstance(v, str) for v in value) else [joined(v) for v in value]

def keep_outputs(content, path: Path) -> Path | None:
    "Put the committed outputs of a report back, and its new ones into `runs`; where they went, if there are any."
    if path.parent != ROOT/"nbs": return None
    old = committed(path)
    cells = [c for c in content["cells"] if c["cell_type"] == "code"]
    new = [c for c in cells if c["outputs"] and joined(c["outputs"]) != joined(old.get(c["id"], []))]
    to = ROOT/"runs"/path.name if new else None
    if to:
        to.parent.mkdir(exist_ok=True)
        part = to.with_name(f".{to.name}.tmp")
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
        os.replace(part, to)
    for c in cells: c["outputs"] = copy.deepcopy(old.get(c["id"], []))
    return to

def save(model, path, contents_manager=None, **more):
    "Before a notebook is saved."
    where = (Path(contents_manager.root_dir)/path.lstrip("/")).resolve()
    clean_jupyter(path=str(where), model=model)
    if model["type"] != "notebook" or model["content"]["nbformat"] != 4: return
    to = keep_outputs(model["content"], where)
    if to: contents_manager.log.info("the outputs of %s are kept in %s", path, to.relative_to(ROOT))

c = get_config()  # noqa: F821 (Jupyter reads this file, and brings it)
c.ContentsManager.pre_save_hook = save
