"One page over many runs: what is broken hides no other, what anybody wrote is shown and does nothing, and a browser finds everything there."
import base64, json, re
from html.parser import HTMLParser
from urllib.parse import unquote

import nbformat, pytest
from test_site import WIDER, Page, browser      # noqa: F401

from synthlab.cli.main import main
from synthlab.experiments import view
from synthlab.experiments.config import to_yaml
from synthlab.experiments.explore import Explorer, Steps
from synthlab.experiments.lab import get_lab
from synthlab.experiments.reports import to_html
from synthlab.experiments.runs import Run, RunFolder
from synthlab.experiments.view import draw_curves, look_at, make_page, view_runs

def made(root, name="plain", epochs=3, lr=.1, end="done", error=None, folder=None, lab="events", result=dict(reconstruction=.5, anomalies=[], bits=9, codes_used=None, perplexity=None)):
    "A run as training leaves it."
    run = Run.create(root, lab, name, f"seed: 7\ntraining:\n  lr: {lr}\n  epochs: 5\n", [f"training.lr={lr}"], folder)
    for e in range(1, epochs + 1):
        run.facts.scalars(dict(step=e, epoch=e, val_loss=1/e, train_loss=2/e))
        run.facts.event("best", step=e, epoch=e, score=1/e)
    if result: run.write_result(result)
    if end: run.close(end, error)
    return run

pictures = {}       # each is drawn once

def page_of(root): return make_page(view.runs_in([root]), root/"view.html", drawn=pictures)

class Markup(HTMLParser):
    "Every element with its attributes, and the text."
    def __init__(self, page):
        super().__init__(); self.found, self.text = [], ""
        self.feed(page)
    def handle_starttag(self, tag, attrs): self.found.append((tag, dict(attrs)))
    def handle_data(self, data): self.text += data

# --- what is broken ------------------------------------------------------------------------------------------------------------

SPOILT = b"[", b"\x00\xff", b"epoch,val_loss\nx,y\n", b'{"status": 7, "reconstruction": "much"}', b"", b"["*50_000, b"a: *b", b"- 1\n- [", b'"text"', b"epoch\n1e99\n", b'{"event": 1}\n'

@pytest.mark.parametrize("spoilt", [pytest.param(s, id=str(i), marks=[pytest.mark.soak]*(i > 1)) for i, s in enumerate(SPOILT)])
@pytest.mark.parametrize("name", ["status.json", "config.yaml", "overrides.yaml", "result.json", "facts/scalars.csv", "facts/events.jsonl"])
def test_a_document_that_is_broken_hides_no_other(name, spoilt, tmp_path):
    "Nor another run; where it is no document of its kind, it is named."
    run = made(tmp_path, "spoilt")
    made(tmp_path, "sound")
    (run.folder/name).write_bytes(spoilt)
    seen, (page, _) = look_at(run.folder), page_of(tmp_path)
    assert page.count("<tr>") == 3 and page.count("error 0.5000") >= 1 and "</html>" in page
    if name != "status.json": assert (seen.status, seen.name) == ("done", "spoilt")
    if name != "result.json": assert seen.headline
    if name not in ("facts/scalars.csv", "facts/events.jsonl"): assert len(seen.curves) == 3
    assert all(name in why for why in seen.why) and (seen.why or spoilt != b"[" or name in ("facts/scalars.csv", "facts/events.jsonl", "overrides.yaml"))

def test_every_ending_is_told_apart(tmp_path):
    "Also that of a process which told nobody."
    for end in "done", "failed", "interrupted": made(tmp_path, end, end=end, error="the loss is NaN" if end == "failed" else None)
    running, killed = made(tmp_path, "running", end=None), made(tmp_path, "killed", end=None)
    killed.lock.release()
    page, busy = page_of(tmp_path)
    assert busy and "5 runs: 1 running, 1 done, 1 failed, 2 interrupted." in page and "the loss is NaN" in page and "epoch 3 of 5" in page
    running.close()
    assert not page_of(tmp_path)[1]

def test_what_was_not_learnt_by_epochs_has_no_curves(tmp_path):
    made(tmp_path, "trees", epochs=0)
    made(tmp_path, "begun", epochs=1, result=None)
    page, _ = page_of(tmp_path)
    assert page.count("<img") == 1 and "Nothing was learnt epoch by epoch, so far or at all: trees." in page

def test_a_run_of_a_lab_that_is_not_here_has_its_numbers(tmp_path):
    made(tmp_path, lab="nobodys", result=dict(rmse=.25))
    assert "rmse 0.25" in page_of(tmp_path)[0]

QUANT = dict(score=-.0049, family="ridge", asked=["xdm_ret_5d"], targets=dict(xdm_ret_5d=dict(main="rank_ic", scores=dict(ridge=dict(rank_ic=[-.0049, -.028, .018, .7])))),
             folds=4, test_from="2020-01-01", test_to="2021-01-01", assets=20)

def quant_run(root, name, typed, end, known):
    "A run of the quant lab as its training leaves it."
    run = made(root, name, epochs=0, lab="quant", result=QUANT if end == "done" else None, end=None)
    (run.folder/"config.yaml").write_text(to_yaml(get_lab("quant").configure(typed)))
    (run.folder/"overrides.yaml").write_text("".join(f"- {json.dumps(o)}\n" for o in typed))
    run.set_status("running", data=dict(rows=known, first="2013-01-02 00:00", last="2022-12-28 00:00"))
    if end: run.close(end)
    else: run.lock.release()
    return run.folder

def test_settings_are_compared_whatever_has_become_of_a_run(tmp_path):
    "By what its configuration says: done, interrupted, failed or killed."
    for end in "done", "interrupted", "failed", None: quant_run(tmp_path, f"as {end}", ["family=ridge", f"data.start={2013 + len(str(end))}-01-01"], end, 100)
    seen = [look_at(folder) for folder in view.runs_in([tmp_path])]
    assert sorted(s.status for s in seen) == ["done", "failed", "interrupted", "interrupted"] and not any(s.why for s in seen)
    assert [list(d) for d in view.differing(seen)] == [["data.start"]]*4 and len({s.settings["data.start"] for s in seen}) == 3

def test_a_table_of_runs_says_how_sure_a_score_is_and_whose_data_it_is(tmp_path, capsys):
    "The number of a walk is called what it is; data stand there where they differ, so that nobody ranks what cannot be ranked."
    quant_run(tmp_path, "one", ["family=ridge"], "done", 50_320)
    assert main(["runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "mean rank IC -0.005 (-0.028 to 0.018)" in said and "us20" not in said
    other = quant_run(tmp_path, "two", ["family=ridge"], "interrupted", 10_000)
    assert main(["runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "us20, 50,320 rows, 2013-01-02 to 2022-12-28" in said[0] and "us20, 10,000 rows" in said[1] and said[1].startswith("interrupted")
    (other/"config.yaml").write_text("data: [")
    assert main(["runs", str(tmp_path)]) == 0 and capsys.readouterr().out.count("\n") == 2, "what is broken hides no other"

# --- what anybody wrote ----------------------------------------------------------------------------------------------------------

NASTY = '"><img src=x onerror=alert(1)>', "]]></style><script>{{ 7919*7927 }}{% raw %}", "javascript:alert(1)", "a\u202egnp.exe", '<script>alert(1)</script>', "'; --x", "$\\frac{", "é 日本 🙂 x"
TAGS = set("html head meta title style body main h1 h2 p table thead tbody tr th td div span a figure figcaption strong img details summary".split())

@pytest.mark.parametrize("text", [pytest.param(t, id=str(i), marks=[pytest.mark.soak]*(i > 3)) for i, t in enumerate(NASTY)])
def test_names_are_shown_and_do_nothing(text, tmp_path):
    "Of a run, a lab, a folder, a setting, a column and in an error; in text, in an alternative text and in an address."
    folder = tmp_path/text.replace("/", "_")
    run = made(tmp_path, text, end="failed", error=f"it said {text}", folder=folder, lab=text, result={text: .5})
    (folder/"config.yaml").write_text(json.dumps({"a" + text.replace("${", ""): text.replace("${", "")}))
    (folder/"report.html").write_text("made")
    run.facts.scalars({"step": 9, "epoch": 9, f"val_{text}": 1., "train_loss": 1.})
    made(tmp_path, "other", folder=tmp_path/"other", lab=text)
    (tmp_path/"other"/"config.yaml").write_text(json.dumps({"a" + text: 1}))
    page = page_of(tmp_path)[0]
    seen = Markup(page)
    assert {tag for tag, _ in seen.found} <= TAGS and not any(k.startswith("on") for _, attrs in seen.found for k in attrs)
    links = [attrs["href"] for tag, attrs in seen.found if tag == "a"]
    assert all(re.fullmatch(r"#run-\d+|[\w%./~-]+", link) for link in links) and "javascript:" not in " ".join(links)
    assert any((tmp_path/unquote(link)).is_file() for link in links)
    shown = text.replace("\u202e", "\N{REPLACEMENT CHARACTER}")
    assert seen.text.count(shown) >= 5 and any(shown in attrs.get("alt", "") for _, attrs in seen.found) and "62773913" not in seen.text
    assert all(attrs["src"].startswith("data:image/svg+xml;base64,") for tag, attrs in seen.found if tag == "img")

def test_a_picture_is_made_of_numbers_alone(tmp_path):
    "No name of a column gets into it, and it is drawn again only when there is something new."
    run, drawn = made(tmp_path, "one", end=None), {}
    make_page([run.folder], tmp_path/"view.html", drawn=drawn)
    make_page([run.folder], tmp_path/"view.html", drawn=drawn)
    run.facts.scalars(dict(step=4, epoch=4, val_loss=.1, train_loss=.2))
    make_page([run.folder], tmp_path/"view.html", drawn=drawn)
    run.close()
    assert len(drawn) == 2 and all("<script" not in base64.b64decode(address.partition(",")[2]).decode() for address in drawn.values())

# --- the command ---------------------------------------------------------------------------------------------------------------------

def test_the_command_says_where_the_page_is(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["view"]) == 2 and "there is no run and no folder of runs at runs; start one with: synthlab train" in capsys.readouterr().err
    run = made(tmp_path/"runs")
    for line, page in ([], "runs/view.html"), ([str(run.folder)], f"{tmp_path}/runs/view.html"), (["runs", "--output", "all.html"], "all.html"):
        assert main(["view", *line]) == 0 and capsys.readouterr().out.splitlines()[-1] == f"view: {page}"
        assert "1 run: 1 done." in (tmp_path/page).read_text()
    for line, why in (["--output", "a.pdf"], "name it .html"), (["--output", "no/a.html"], "there is no folder no"), (["nobody"], "at nobody"), (["a\0b"], "holds a NUL"):
        assert main(["view", "runs", *line]) == 2 and why in (said := capsys.readouterr().err) and said.count("\n") == 1
    (tmp_path/"empty").mkdir()
    assert main(["view", "empty"]) == 2 and "there is no run in empty" in capsys.readouterr().err

def test_runs_of_a_sweep_lie_one_folder_down(tmp_path):
    made(tmp_path/"sweep", "inner"); made(tmp_path, "outer")
    assert "2 runs" in view_runs([tmp_path]).read_text()

def test_a_page_that_nobody_renews_does_not_look_alive(tmp_path, capsys):
    "Also at Ctrl-C, and where there is no run yet."
    def stop(seconds): raise KeyboardInterrupt
    page = view_runs([tmp_path], live=True, sleep=stop)
    assert "There is no run yet" in page.read_text() and "refresh" not in page.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["view.html"] and capsys.readouterr().out.splitlines()[-1] == f"view: {page}"

def test_a_folder_that_vanishes_meanwhile_is_no_fault(tmp_path):
    run = made(tmp_path)
    assert look_at(RunFolder(run.folder.with_name("gone")).folder).status == "interrupted"

def test_an_epoch_that_was_not_validated_leaves_a_gap(tmp_path):
    seen = look_at(made(tmp_path, epochs=2, result=None).folder)
    fig = draw_curves(seen.curves.assign(val_loss=float("nan")))
    assert "not measured yet" in fig.axes[1].get_title("left")
    view.plt.close(fig)

# --- in a browser --------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Runs of every ending, one with a long name, one of many epochs, and a report."
    root = tmp_path_factory.mktemp("runs")
    first = made(root, "first", 60)
    (first.folder/"report.html").write_text("<!doctype html><title>a report</title>")
    made(root, "x"*80, 1, .2, "failed", "the loss is NaN; " + "y"*200)
    made(root, "trees", 0, lr=.3)
    made(root, "stopped", 2, lr=.1, end="interrupted", result=None)
    return view_runs([root]).parent

GROUND = "['backgroundColor', 'color'].map(k => getComputedStyle(document.body)[k].match(/\\d+/g).reduce((a, b) => a + +b, 0))"
TURNED = "getComputedStyle(document.querySelector('img')).filter"

def test_the_page_in_a_browser(browser, folder):        # noqa: F811
    "Table, curves, links; nothing is wider than the window, nothing is asked of anybody, and ink is seen on its ground."
    with Page(browser, folder.as_uri(), 1400) as p:
        page = p.open("view.html")
        assert page.locator("tbody tr").count() == 4 and not p.wrong, p.wrong
        for width in 1400, 400:
            page.set_viewport_size(dict(width=width, height=900))
            drawn = page.locator("figure img").evaluate_all("all => all.map(i => [i.naturalWidth > 100, i.clientWidth > 200, i.alt])")
            assert len(drawn) == 3 and all(there and wide and "epoch" in alt for there, wide, alt in drawn)
            assert page.evaluate(WIDER) == [] and page.evaluate("document.documentElement.scrollWidth") == width
            assert page.locator("thead").is_visible() == (width == 1400)
        (ground, ink), turned = page.evaluate(GROUND), page.evaluate(TURNED)
        assert ground > 700 and ink < 200 and turned == "none"
        page.emulate_media(color_scheme="dark")
        (ground, ink), turned = page.evaluate(GROUND), page.evaluate(TURNED)
        assert ground < 100 and ink > 500 and turned == "invert(1) hue-rotate(180deg)"
        page.get_by_role("link", name="first").click()
        assert page.locator("figure:target").inner_text().startswith("first") and page.locator("figure:target img").is_visible()
        page.get_by_role("link", name="report").click()
        assert page.title() == "a report" and not p.wrong, p.wrong

def test_a_page_without_a_kernel_shows_the_picture_of_what_is_stepped_through(browser, tmp_path):      # noqa: F811
    "Sliders need a kernel; a report that was made of them shows what was chosen at first, and nothing else of them."
    pytest.importorskip("ipywidgets")
    live = Explorer(Steps(dict(epochs=[3, 4]), lambda epochs: draw_curves(look_at(made(tmp_path, epochs=epochs).folder).curves)))
    output = nbformat.v4.new_output("display_data", live._repr_mimebundle_())
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("explore(run)", outputs=[output])])
    (tmp_path/"report.html").write_text(to_html(notebook))
    with Page(browser, tmp_path.as_uri()) as p:
        page = p.open("report.html")
        assert page.locator("img").evaluate_all("all => all.map(i => i.naturalWidth > 300)") == [True] and "VBox" not in page.inner_text("body")
