"What two labs would say in the same steps is said once, below them: their functions are compared with all names removed."
import ast
from itertools import combinations
from pathlib import Path

import pytest

LABS = Path(__file__).parent.parent/"synthlab"/"labs"
ROW = 6         # consecutive statements that no two labs share

class Nameless(ast.NodeTransformer):
    "A tree without names, attributes, words and numbers."
    def generic_visit(self, node):
        super().generic_visit(node)
        for field in "id", "attr", "arg", "name", "asname", "module":
            if isinstance(getattr(node, field, None), str): setattr(node, field, "_")
        if isinstance(node, ast.Constant): node.value, node.kind = 0, None
        return node

def shape(statement):
    "What a statement does, whatever it is about; of a compound one its head alone, as its body is a row of its own."
    node = ast.parse(ast.unparse(statement)).body[0]
    for inner in "body", "orelse", "finalbody":
        if getattr(node, inner, None): setattr(node, inner, [ast.Pass()])
    for handler in getattr(node, "handlers", []): handler.body = [ast.Pass()]
    return ast.dump(Nameless().visit(node))

def blocks(tree):
    "The rows of statements in functions, at every depth, with the function's name; sentences about them left out."
    for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)):
        for node in ast.walk(function):
            for inner in "body", "orelse", "finalbody":
                row = getattr(node, inner, None)
                if not isinstance(row, list): continue
                yield function.name, [s for s in row if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]

def runs_of(source, length=ROW):
    "Every run of so many statements, nameless, with where it stands."
    found = {}
    for name, row in blocks(ast.parse(source)):
        said = [shape(s) for s in row]
        for i in range(len(said) - length + 1): found.setdefault(tuple(said[i:i + length]), f"{name}, line {row[i].lineno}")
    return found

def of_lab(folder):
    found = {}
    for path in sorted(folder.glob("*.py")): found |= {k: f"{path.stem}.{v}" for k, v in runs_of(path.read_text()).items()}
    return found

def test_no_two_labs_do_the_same_in_the_same_steps():
    labs = {folder.name: of_lab(folder) for folder in sorted(LABS.iterdir()) if (folder/"__init__.py").exists()}
    assert len(labs) >= 3 and all(labs.values())
    twice = [f"{a}: {labs[a][k]} is {b}: {labs[b][k]}" for a, b in combinations(labs, 2) for k in labs[a].keys() & labs[b].keys()]
    assert not twice, "\n".join(twice)

ONE = '''
def train(folder, seed):
    "One way."
    path = Path(folder)
    for epoch in range(3):
        a = load(path, seed)
        b = a.mean(1)
        if b > 2: raise ValueError("no")
        c = [x + 1 for x in b]
        d = dict(c=c)
        print(d)
    return path
'''

@pytest.mark.parametrize("change,same", [
    (lambda s: s, True), (lambda s: s.replace("seed", "number").replace("epoch", "i").replace("mean", "sum").replace('"no"', "'never'").replace("print", "say"), True),
    (lambda s: s.replace("One way", "Another"), True), (lambda s: s.replace("b > 2", "b > 7"), True),
    (lambda s: s.replace("x + 1", "x*2"), False), (lambda s: s.replace("        d = dict(c=c)\n", ""), False)], ids=range(6))
def test_names_do_not_hide_the_same_steps(change, same):
    "Other names, words and numbers are the same steps; another operation or a missing one is not."
    assert bool(runs_of(ONE).keys() & runs_of(change(ONE)).keys()) == same

CLI = LABS.parent/"cli"
MAY = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.Assign | ast.Expr

def grammar(node):
    "Whether a class is a parser, or a row of the table of verbs: fields and nothing else."
    parser = any("ArgumentParser" in ast.unparse(base) for base in node.bases)
    return parser or all(isinstance(n, ast.AnnAssign | ast.Expr) for n in node.body)

def test_the_command_line_parses_and_calls_and_nothing_else():
    "No class but parsers, no loop over data: each function adds arguments, or calls what a module below offers and prints it."
    for path in sorted(CLI.glob("*.py")):
        tree = ast.parse(path.read_text())
        assert all(isinstance(node, MAY) or isinstance(node, ast.ClassDef) and grammar(node) for node in tree.body), path.name
        below = [n for n in ast.walk(tree) if isinstance(n, ast.While | ast.AugAssign | ast.AsyncFunctionDef)]
        assert not below, f"{path.name}, line {below[0].lineno}"
        modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("synthlab.")}
        floors = {m.split(".")[1] for m in modules - {"synthlab.metrics.wording"}}      # of the lowest floor its sentences alone
        assert floors <= {"experiments", "labs", "models", "datasets", "trainers", "cli"}, path.name
