"Write `README.md` from `index.ipynb`, outputs included."
from pathlib import Path
import nbformat

ROOT = Path(__file__).parent.parent

def readme() -> str:
    "The home page as Markdown."
    parts = []
    for c in nbformat.read(ROOT/"index.ipynb", 4).cells:
        if c.cell_type == "markdown": parts.append(c.source)
        if c.cell_type != "code" or "#| hide" in c.source: continue
        parts.append(f"```python\n{c.source}\n```")
        shown = [o.get("text") or o["data"].get("text/plain", "") for o in c.outputs if o.output_type != "error"]
        if shown: parts.append("```text\n" + "".join(shown).rstrip() + "\n```")
    return "\n\n".join(parts) + "\n"

if __name__ == "__main__": (ROOT/"README.md").write_text(readme(), encoding="utf-8")
