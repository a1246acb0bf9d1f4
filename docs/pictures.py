"Draw the pictures of `README.md` and of the home page: figures of the committed reports, one a lab."
import base64
from pathlib import Path
import nbformat

ROOT = Path(__file__).parent.parent
PICTURES = dict(                    # name: report, and what the cell says that shows the figure
    forecast=("train", 'figures["fans"]'), economy=("emulate", 'figures["quantiles"]'),
    signal=("price_action", 'figures["wealth"]'), panel=("walk_forward", '_equity")'),
    collision=("autoencode", 'show("anomalies")'))

def picture(report: str, shown: str) -> bytes:
    "The first picture of the cell of a report that shows a figure."
    for cell in nbformat.read(ROOT/f"nbs/{report}.ipynb", 4).cells:
        found = [o.data["image/png"] for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        if found and shown in cell.source: return base64.b64decode(found[0])
    raise LookupError(f"nbs/{report}.ipynb shows no picture by {shown}; run it again")

def draw():
    "Write docs/pictures."
    (folder := ROOT/"docs/pictures").mkdir(exist_ok=True)
    for name, place in PICTURES.items(): (folder/f"{name}.png").write_bytes(picture(*place))

if __name__ == "__main__": draw()
