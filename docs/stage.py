"""Write `_site_src/`: the notebooks as plain pages that any builder can read.

nbdev does the hard part: it adds an entry for each exported name, links names in prose and obeys `#| hide`. What it
writes is meant for Quarto; this turns entries into Markdown cells under labels, links into references that Sphinx
checks, and `#| exports` cells into folded sources."""
import ast, gc, inspect, json, linecache, os, re, shutil, sys, types
from functools import cache, lru_cache
from pathlib import Path

import fastcore.docments, fastcore.nbio, nbdev.processors, nbdev.showdoc, nbformat, yaml
from execnb.shell import CaptureShell
from fastcore.basics import AttrDict
from fastcore.nbio import mk_cell, nb2dict, read_nb
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.processors import FilterDefaults
from synthlab._modidx import d as index
from synthlab.experiments.pages import prepared

sys.modules["rfc3987_syntax"] = None        # grammars for addresses that no notebook has: a second of nbformat's import

ROOT = Path(__file__).parent.parent
SITE = ROOT/"_site_src"
HOME = Path("index.ipynb")
PICTURES = Path("docs/pictures")
# The sidebar. A lab is its guide, below which its reports and rooms are folded; so is a floor, below a list of them.
LABS = dict(market=("market", "train evaluate markets backtest tournament stylised_facts peers"),
            macro=("macro", "emulate estimate smets_wouters"), signal=("price_action", "price_action"),
            quant=("quant", "walk_forward"), events=("events", "autoencode compare extending"))
FLOORS = dict(metrics="Scores, and tests of which the size and the power are measured.",
              datasets="What is learnt from: bars, panels, economies, collisions, and the one time contract.",
              models="Blocks, heads, baselines, families, emulators, autoencoders.",
              trainers="The loop, what it writes down, and how an interrupted one ends.",
              experiments="The bench that all labs share: settings, runs, reports, sweeps, comparisons.",
              cli="The command line: parsers and calls, nothing else.")
BEGIN = "start why own_data own_model cookbook".split()
NAMES = {url: name for mod in index["syms"].values() for name, (url, _) in mod.items()}     # page#anchor -> dotted name

def signature(symbol, eval_str=False, **kw):
    "A type that is named as text before it is defined stays text."
    try: return inspect.signature(symbol, eval_str=eval_str, **kw)
    except NameError: return inspect.signature(symbol, **kw)

@lru_cache(500)
def parsed(source):
    "The statements of a cell. nbdev asks several times for those of each, and would parse it each time."
    return ast.parse(source).body

def parsed_cell(cell):
    "None where a cell is no Python, as nbdev has it."
    if cell.cell_type != "code" or cell.source.strip()[:1] in ("%", "!"): return None
    try: return parsed(cell.source)
    except SyntaxError: return None

def is_run(cell, default=nbdev.processors._do_eval):
    "Exported cells are run to write their entries, and imports; a cell that imports and does something else is not."
    trees = cell.cell_type == "code" and cell.parsed_()
    shows = trees and (cell.directives_.keys() & {"export", "exports", "exporti"}
                       or re.search("^show_doc", cell.source, re.M))
    only = trees and all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in trees)
    return (shows or only) and default(cell)

class Shell:
    "Runs the cells of a notebook, and keeps what `show_doc` says: IPython needs ten times as long for a cell."
    exc = None                      # nbdev asks; here an error is raised at once
    def __init__(self, **_): sys.modules["__main__"], self.count = types.ModuleType("__main__"), 0

    def run_cell(self, source):
        "The value of the last line, if it has one. Sources can be looked up, as `show_doc` reads comments."
        self.count += 1
        name, names, tree = f"<cell {self.count}>", vars(sys.modules["__main__"]), ast.Module([*parsed(source)], [])
        linecache.cache[name] = len(source), None, source.splitlines(True), name
        last = ast.Expression(tree.body.pop().value) if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), names)
        return last and eval(compile(last, name, "eval"), names)

    def cell(self, cell):
        said = getattr(self.run_cell(cell.source), "_repr_markdown_", None)
        data = said and AttrDict({"text/markdown": said()})
        cell.outputs = [AttrDict(output_type="display_data", data=data, metadata={})] if said else []

fastcore.nbio.NbCell.parsed_ = parsed_cell
fastcore.docments.signature, nbdev.processors._do_eval, nbdev.processors.CaptureShell = signature, is_run, Shell
nbdev.processors.get_config = nbdev.showdoc.get_config = cache(get_config)      # it would be read for every cell

def page(path): return path.with_name(re.sub(r"^\d+[a-z]*_", "", path.name))

def prose(text): return mk_cell(text, "markdown")

def flag(name, source): return re.search(rf"^#\|\s*{name}\b", source, re.M)

def module(nb, at):
    "Where the notebook exports to; pages that export nothing have a name too, which no entry uses."
    default = [m[1] for c in nb.cells if c.cell_type == "code"
               and (m := re.search(r"^#\|\s*default_exp\s+(\S+)", c.source, re.M))]
    return "synthlab." + (default[0] if default else ".".join(page(at).with_suffix("").parts))

def links(md, labels):
    "nbdev's links become references to labels (of the class, for a method), links to notebooks links to their pages."
    def reference(m):
        name = NAMES.get(m[2].lstrip("/"), "")
        while name and name not in labels: name = name.rpartition(".")[0]
        return f"[{m[1]}](#{name})" if name else m[1]
    inner = r"\[([^\]]+)\]\((/+[^)\s]+\.html(?:#[^)\s]*)?)\)"
    within = rf"\[([^\[\]]*){inner}([^\[\]]*)\]\("        # a name within a link leads where the link does
    md = re.sub(within, r"[\1\2\4](", md)
    md = re.sub(inner, reference, md)
    return re.sub(r"\]\((?:nbs/)?([\w./-]+\.ipynb)(?=[)#])", lambda m: f"]({page(Path(m[1])).as_posix()}", md)

def declared_fields(name, source):
    "The fields of a dataclass or a named tuple with their comments, which nbdev leaves out."
    head = rf"(?:@dataclass.*\nclass {name}\b|class {name}\(NamedTuple\))"
    body = re.search(rf"^{head}.*\n((?:    .*\n|\s*\n)+)", source + "\n", re.M)
    lines = body[1].splitlines() if body else []
    end = next((i for i, line in enumerate(lines) if re.match(r"    (def|@|async)\b", line)), len(lines))
    return [line for line in lines[:end] if re.match(r"    \w+ *:", line)]

def entry(cell, source, module, labels, level):
    "What nbdev's `show_doc` printed, under a label; a source link to a host that may not exist is dropped."
    md = "".join(cell.outputs[0]["data"]["text/markdown"])
    name = re.search(r"^### (.+)$", md, re.M)[1]
    md = re.sub(r"^---\n+|^\[source\]\(.*\n+", "", md, flags=re.M)
    md = md.replace("```python\n\n", "```python\n").replace("\n\n\n```", "\n```")
    md = md.replace("__main__.", "").replace("torch._C.", "torch.").replace(":NoneType=None", "=None")
    md = re.sub(r"torch\.nn\.modules\.\w+\.", "torch.nn.", md)
    md = re.sub(r"^def (?=[A-Z])", "class ", md, flags=re.M)        # nbdev writes `def` before a class too
    if fields := declared_fields(name, source):
        md = re.sub(r"```python\n.*?\n```", lambda m: "\n".join(["```python", f"class {name}(", *fields, ")", "```"]),
                    md, count=1, flags=re.S)
    return re.sub(r"^### .+$", lambda m: f"({module}.{name})=\n{'#'*level} `{name}`", links(md, labels), count=1,
                  flags=re.M)

def split(c, labels):
    "A code cell, then each of its Markdown outputs as a Markdown cell: only those are searched for references."
    parts, c.outputs, outputs = [c], [], c.outputs
    for o in outputs:
        data = o.get("data", {})
        for kind in [k for k in data if k.startswith("application/vnd.")]:
            del data[kind]     # live widgets, addresses on one machine
        if "text/markdown" in data: parts.append(prose(links("".join(data["text/markdown"]), labels)))
        elif parts[-1].cell_type == "code": parts[-1].outputs.append(o)
        else: parts.append(mk_cell("# it needs a source", outputs=[o], metadata={"tags": ["remove-input"]}))
    for p in parts:
        shown = [o.get("metadata", {}) for o in p.get("outputs", [])]
        widths = [f"{o['image/png']['width']}px" for o in shown if "width" in o.get("image/png", {})]
        image = dict(width=widths[:1], alt=[o["alt"] for o in shown if "alt" in o][:1])
        if any(image.values()): p.metadata["mystnb"] = {"image": {k: v[0] for k, v in image.items() if v}}
    return parts

def is_entry(c): return c.cell_type == "code" and flag("output: *asis", c.source)

def sorted_entries(cells):
    "Entries in order, then the source, where a cell defines several names: nbdev puts its source among them."
    cells = list(cells)
    for i, c in enumerate(cells):
        if c.cell_type != "code" or not flag("code-fold", c.source): continue
        first, last = i, i + 1
        while is_entry(cells[first - 1]): first -= 1
        while last < len(cells) and is_entry(cells[last]): last += 1
        defined = re.findall(r"^(?:async )?(?:def|class) (\w+)", c.source, re.M)
        named = lambda e: re.search(r"show_doc\((\w+)", e.source)[1]
        mine = [e for e in cells[first:i] + cells[i+1:last] if named(e) in defined]
        cells[first:last] = ([e for e in cells[first:i] if e not in mine]
                             + sorted(mine, key=lambda e: defined.index(named(e))) + [c]
                             + [e for e in cells[i+1:last] if e not in mine])
    return cells

def entries(nb, name):
    "The labels of the page: its entries."
    text = ("".join(c.outputs[0]["data"]["text/markdown"]) for c in nb.cells if is_entry(c) and c.outputs)
    return {f"{name}.{m[1]}" for md in text if (m := re.search(r"^### (.+)$", md, re.M))}

def plain(nb, meta, name, labels):
    "The notebook with nothing in it that is meant for nbdev or Quarto."
    quote = f"\n\n> {meta['description']}" if meta.get("description") else ""
    cells, level = [prose(links(f"# {meta['title']}{quote}", labels))], 1
    exported = ROOT/Path(*name.split(".")).with_suffix(".py")       # an `#| export` cell is no longer among the cells
    sources = exported.read_text(encoding="utf-8") if exported.exists() else ""
    for c in sorted_entries(nb.cells)[1:]:
        if c.cell_type == "markdown" and not c.source.startswith("<!-- WARNING"):
            cells.append(prose(links(c.source, labels)))
            heads = re.findall(r"^(#+) ", re.sub(r"^```.*?^```", "", c.source, flags=re.M | re.S), re.M)
            if heads: level = len(heads[-1])
        if c.cell_type != "code": continue
        if is_entry(c):
            if c.outputs: cells.append(prose(entry(c, sources, name, labels, min(level + 1, 3))))
            continue
        c.metadata = ({"tags": ["hide-input"]} if flag("code-fold", c.source)
                      else {"tags": ["remove-input"]} if flag("echo: *false", c.source) else {})
        c.source = re.sub(r"^#\|.*\n?", "", c.source, flags=re.M)
        cells += split(c, labels)
    nb.cells, nb.metadata = cells, {"kernelspec": nb.metadata["kernelspec"]}
    return nb

def boxed(name, *parts):
    "Markdown in a box of its own."
    return prose("\n\n".join([f"```{{container}} {name}", *parts, "```"]))

def as_report(nb, at):
    "A report begins as the page that `synthlab report` writes: what was found, what it was made of; code is folded."
    notebook, front = prepared(nbformat.read(ROOT/"nbs"/at, 4))
    if not front["sentences"]: return
    whole, cells = {c.id: c for c in notebook.cells}, []
    for c in nb.cells:
        twin = whole.get(c.get("id"))
        if twin and twin.metadata.get("terms"):
            cells.append(boxed("terms", *(f"**{name}**: {why}" for name, why in twin.metadata.terms)))
        if c.cell_type == "code":
            if twin: c.outputs = twin.outputs
            if not flag("echo: *false", c.source): c.source = "#| code-fold: true\n" + c.source
        cells.append(c)
    said, figure = "\n".join(f"* {s}" for s in front["sentences"]), front["figure"]
    image = [f"![{figure['alt']}](data:image/png;base64,{''.join(figure['png'].split())})"] if figure else []
    nb.cells = [*cells[:1], boxed("front", said, front["made"], *image), *cells[1:]]

def redraw(nb, at):
    "A page with `live: true` is drawn from the code: its outputs are made again each time."
    here, shell = os.getcwd(), CaptureShell(profile=False)
    os.chdir((ROOT/"nbs"/at).parent)
    try:
        outputs = {c.id: shell.run(c.source)
                   for c in read_nb(ROOT/"nbs"/at).cells if c.cell_type == "code" if not shell.exc}
    finally: os.chdir(here)
    if shell.exc: raise shell.exc
    for c in nb.cells:
        if c.cell_type == "code" and c.id in outputs: c.outputs = outputs[c.id]

def toctree(paths, caption=""):
    "Pages of the sidebar, below a caption or folded below the page that this stands on."
    return "```{toctree}\n:hidden:\n%s%s\n```" % (f":caption: {caption}\n" if caption else "", "\n".join(paths))

def target(at): return page(at).with_suffix("").as_posix()

def in_order(pages, folder):
    "Pages of a folder: guides and reports in their `order`, the rest by number."
    own = [at for at in pages if at.parent == Path(folder) and at != HOME]
    return sorted(own, key=lambda at: (pages[at][1].get("order", 0), at.name))

def listed(pages, paths):
    "A table of pages and what each claims."
    says = lambda at: pages[at][1].get("description", "")
    rows = [f"| [{pages[at][1]['title']}](/{page(at).as_posix()}) | {says(at)} |" for at in paths]
    return "\n".join(["| page | what it says |", "|---|---|", *rows])

def floor_page(pages, floor):
    "A page that lists the rooms of a floor."
    own = in_order(pages, floor)
    title = "command line" if floor == "cli" else floor
    text = [f"# {title.capitalize()}", f"> {FLOORS[floor]}", listed(pages, own),
            toctree([f"/{target(at)}" for at in own])]
    kernel = dict(display_name="python3", language="python", name="python3")
    return AttrDict(cells=[prose("\n\n".join(text))], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)

def lab_footer(pages, lab):
    "What else there is of a lab: its reports, its rooms, its settings."
    names = [f"{name}.ipynb" for name in LABS[lab][1].split()]
    reports = [next(at for at in (Path(name), Path("guides", name)) if at in pages) for name in names]
    rooms = in_order(pages, f"labs/{lab}")
    text = ["## More of this lab\n\nEvery setting of the lab, with type, default and meaning: "
            f"[settings](/guides/settings.ipynb#{lab}).",
            listed(pages, reports), "Its rooms are the code, read in order:", listed(pages, rooms),
            toctree([f"/{target(at)}" for at in [*reports, *rooms]])]
    return prose("\n\n".join(text))

def contents(pages):
    "The sidebar of the home page: where to begin, the labs, the library, and what is about all of it."
    guides = [f"guides/{name}" for name in BEGIN]
    labs = [f"guides/{guide}" for guide, _ in LABS.values()]
    below = {f"guides/{name}" for _, names in LABS.values() for name in names.split()}
    rest = [target(at) for at in in_order(pages, "guides") if target(at) not in {*guides, *labs, *below}]
    groups = {"Begin": guides, "Labs": labs, "Library": list(FLOORS), "About": ["benchmark", *rest]}
    return prose("\n\n".join(toctree(paths, caption) for caption, paths in groups.items()))

def whole_quote(nb):
    "The quote below the title in one line: nbdev reads no further."
    title = next((c for c in nb.cells if c.cell_type == "markdown" and c.source.startswith("# ")), None)
    if title: title.source = re.sub(r"(?<=[^\n>])\n> ", " ", title.source)

def staged():
    "Every page as nbdev makes it: path -> (notebook, front matter)."
    paths = {HOME: HOME} | {p.relative_to("nbs"): p for p in nbglob("nbs", as_path=True)}
    pages, main = {at: read_nb(path) for at, path in paths.items()}, sys.modules["__main__"]
    os.environ["IN_TEST"] = "1"                     # as nbdev sets it: `nbdev_export()` in a notebook does nothing
    for at, nb in pages.items():
        whole_quote(nb)
        try: FilterDefaults()(nb)
        except Exception as e: e.add_note(f"in {paths[at]}"); raise
        gc.freeze()                                 # it stays to the end: no collection looks through it again
    sys.modules["__main__"] = main
    del os.environ["IN_TEST"]
    return {at: (nb, yaml.safe_load(nb.cells[0].source.strip().strip("-"))) for at, nb in pages.items()}

def stage():
    shutil.rmtree(SITE, ignore_errors=True)
    pages = staged()
    names = {at: module(read_nb(HOME if at == HOME else Path("nbs")/at), at) for at in pages}
    labels = set().union(*(entries(nb, names[at]) for at, (nb, _) in pages.items()))
    for at, (nb, meta) in pages.items():
        if meta.get("live"): redraw(nb, at)
        if at.parent == Path(".") and at != HOME: as_report(nb, at)
        plain(nb, meta, names[at], labels)
        if at == HOME: nb.cells.append(contents(pages))
        lab = next((lab for lab, (guide, _) in LABS.items() if at == Path(f"guides/{guide}.ipynb")), None)
        if lab: nb.cells.append(lab_footer(pages, lab))
        to = SITE/page(at); to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(json.dumps(nb2dict(nb), ensure_ascii=False), encoding="utf-8")
    for floor in FLOORS:
        text = json.dumps(nb2dict(floor_page(pages, floor)), ensure_ascii=False)
        (SITE/f"{floor}.ipynb").write_text(text, encoding="utf-8")
    shutil.copytree(ROOT/PICTURES, SITE/PICTURES)
