"""Every test and interval under its null and under an alternative.

`python tests/test_size_power.py 2000 [words of cases]` measures what the table of the site, nbs/metrics/size_power.csv, does not
hold with so many studies yet, and writes each row as it comes."""
import sys
from pathlib import Path

import numpy as np, pandas as pd, pytest
from scipy import special

from synthlab.experiments.verdicts import enough, reach
from synthlab.metrics import size_power as sp
from synthlab.metrics.size_power import Case, Design, rejection_rate
from synthlab.metrics.skill import diebold_mariano
from synthlab.trainers import hmc

TABLE = Path(__file__).parents[1]/"nbs/metrics/size_power.csv"
COLUMNS = ["test", "windows", "independent", "studies", "size", "power", "alternative", "verdict"]

def guessed_lags(design, s, r, i):
    "As the labs ask: the overlap, or as far as the differences seem to hang together."
    return diebold_mariano(s, r, reach(s - r, design.shared) - 1)[1] < .05

def truth_ranks(rng, n, design, width): return np.floor(64*special.ndtr(rng.standard_normal((n, design.times, 1))/width)),

def uniform_rejects(design, ranks, i): return hmc.rank_test(ranks.astype(int), ["x"])["p-value"].iloc[0] < .05

CASES = sp.CASES | {
    "Diebold-Mariano test, lags guessed": Case(sp._scores, guessed_lags, *sp.BETTER, sp.WINDOWS),
    "simulation-based calibration": Case(truth_ranks, uniform_rejects, 1., .8, "posteriors 20 % too narrow", (Design(100), Design(300))),
}
CELLS = [(name, design) for name, case in CASES.items() for design in case.designs]
CAUTIOUS = "deflated Sharpe ratio, best of 10", "calibration error of 0 rejected"     # at most 8 %, by construction
COVERAGE = "interval of the calibration error"                                      # has no null: its coverage is stated

def judged(name, design): return enough(design.independent, CASES[name].share)

def in_range(name, size):
    "Whether a nominal 5 % rejects 3 to 8 %."
    return (0 if name in CAUTIOUS else .03) <= size <= (.12 if name == COVERAGE else .08)

def named(cell): return f"{cell[0]} {cell[1]}".replace(" ", "_")

def read_table(): return pd.read_csv(TABLE).set_index(["test", "windows"]) if TABLE.exists() else None

def test_the_table_holds_every_test_and_keeps_its_word():
    table = read_table()
    missing = [named(c) for c in CELLS if (c[0], str(c[1])) not in table.index]
    assert not missing and len(table) == len(CELLS), missing
    for name, design in CELLS:
        row = table.loc[(name, str(design))]
        assert row.studies >= 2000, named((name, design))
        assert row.verdict == ("given" if judged(name, design) else "withheld"), named((name, design))
        if judged(name, design):
            assert in_range(name, row["size"]), (named((name, design)), row["size"])
        if design.shared > 4 and design.independent > 50 and name in sp.CALIBRATION | sp.SKILL: assert row.power > .2, named((name, design))

QUICK = [("PIT test", Design(80, 12, 3)), ("rank test", Design(80, 12, 3, 3)), ("coverage band at 50 %", Design(80, 12, 3)), ("Diebold-Mariano test", Design(20)),
         ("Diebold-Mariano test, lags guessed", Design(20)), ("interval of the skill", Design(80, 12, 3)), ("interval of a mean difference", Design(20, assets=3)),
         ("interval of the Sharpe ratio", Design(60)), ("probabilistic Sharpe ratio", Design(60)), ("Šidák's, best of 10", Design(60)), ("simulation-based calibration", Design(100)),
         ("Kupiec's test at 5 %", Design(250)), ("independence of exceedances at 5 %", Design(1000))]

@pytest.mark.parametrize("cell", QUICK, ids=named)
def test_size_is_about_what_it_says(cell):
    "200 studies: their standard error is 1.5 %."
    assert .005 <= rejection_rate(CASES[cell[0]], cell[1], CASES[cell[0]].null, 200) <= .105

@pytest.mark.soak
@pytest.mark.parametrize("cell", CELLS, ids=named)
def test_size_and_power(cell):
    name, design = cell
    case, told = CASES[name], read_table().loc[(name, str(design))]
    size = rejection_rate(case, design, case.null)
    if judged(name, design): assert in_range(name, size)
    if case.alternative is not None: assert rejection_rate(case, design, case.alternative) > told.power - 4*(.25/told.studies)**.5

def measure(name, design, n):
    case = CASES[name]
    size = rejection_rate(case, design, case.null, n)
    power = np.nan if case.alternative is None else rejection_rate(case, design, case.alternative, n)
    return [round(design.independent), n, round(size, 4), round(power, 4), case.told, "given" if judged(name, design) else "withheld"]

if __name__ == "__main__":
    n, words = int(sys.argv[1]), sys.argv[2:]
    for name, design in CELLS:
        table = read_table()
        rows = {} if table is None else {at: list(row) for at, row in zip(table.index, table.itertuples(index=False))}
        at = name, str(design)
        if words and not any(w in name for w in words) or at in rows and rows[at][1] >= n: continue
        rows[at] = measure(name, design, n)
        rows = {(a, str(d)): rows[a, str(d)] for a, d in CELLS if (a, str(d)) in rows}
        pd.DataFrame([[*k, *v] for k, v in rows.items()], columns=COLUMNS).to_csv(TABLE, index=False)
        print(at, rows[at], flush=True)
