"Write `README.md` from `index.ipynb` and `CHANGELOG.md` from the page of changes, outputs included."
import posixpath, re
from pathlib import Path
import nbformat

ROOT = Path(__file__).parent.parent
WRITTEN = {"README.md": "index.ipynb", "CHANGELOG.md": "nbs/guides/changes.ipynb"}

def markdown(notebook: str) -> str:
    "A notebook as Markdown that stands at the top of the repository."
    here = posixpath.dirname(notebook)
    moved = lambda m: f"]({posixpath.normpath(posixpath.join(here, m[1]))}"
    parts = []
    for c in nbformat.read(ROOT/notebook, 4).cells:
        if c.cell_type == "markdown": parts.append(re.sub(r"\]\(([\w./-]+\.ipynb)(?=[)#])", moved, c.source))
        if c.cell_type != "code" or "#| hide" in c.source: continue
        parts.append(f"```python\n{c.source}\n```")
        shown = [o.get("text") or o["data"].get("text/plain", "") for o in c.outputs if o.output_type != "error"]
        if shown: parts.append("```text\n" + "".join(shown).rstrip() + "\n```")
    return "\n\n".join(parts) + "\n"

if __name__ == "__main__":
    for name, notebook in WRITTEN.items(): (ROOT/name).write_text(markdown(notebook), encoding="utf-8")
