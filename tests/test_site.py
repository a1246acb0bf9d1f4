"""The site is built without a warning, and looked at in a real browser: no error, formulas set, search finds, nothing wider than a
small window.

It is built as `make docs` does, into `_docs/html`. The browser is Debian's Chromium. Where there is none the tests that need it
skip, but with `CI` set they fail: what was not looked at is not known to work."""
import ast, functools, http.server, json, os, re, runpy, subprocess, threading
from pathlib import Path

import nbformat, pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from pygments.lexers.python import PythonLexer
from synthlab.experiments.pages import to_html

ROOT = Path(__file__).parent.parent
SITE = ROOT/"_docs"/"html"
CHROMIUM = Path("/usr/bin/chromium")
QUIET = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync").split()         # a browser that calls nobody
PAGES = "index.html", "metrics/crps.html", "train.html"               # the home page, a library page, a report
NOTEBOOKS = [Path("index.ipynb"), *(p.relative_to(ROOT/"nbs") for p in nbglob(get_config(ROOT).nbs_path, as_path=True))]
FLOORS = "metrics", "datasets", "models", "trainers", "experiments", "cli"        # each has a page that lists its rooms
ALL = sorted([*(p.with_name(re.sub(r"^\d+[a-z]*_", "", p.stem) + ".html").as_posix() for p in NOTEBOOKS), *(f"{f}.html" for f in FLOORS)])

def absent(what):
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)

@pytest.fixture(scope="module")
def built(warm_server):
    "What the builder said and how it ended; a page with a warning is written all the same."
    return subprocess.run([warm_server.executable, ROOT/"docs"/"build.py"], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

def test_the_site_is_built_without_a_warning(built): assert built.returncode == 0, built.stdout

def test_sources_are_told_apart_as_pygments_does():
    "By runs it is faster, and no token is another: also where strings, numbers and words are none."
    fast, said = runpy.run_path(str(ROOT/"docs/lexing.py"))["FastLexer"](), PythonLexer()
    odd = r'''x.max(f"{a!r:>{w}}", b'\x00', .5, 0x1F, 1_000, 1e5, 0j, "it's", "", """a "b" """, r"\d", "%s", "{}")
@a.b
  """doc"""
class __A(self): lambda: not in is_in or _x
match x:
  case _: yield from é
lazy import a.b as print
!ls'''
    for text in (odd, *(p.read_text() for p in sorted((ROOT/"docs").glob("*.py")))): assert list(fast.get_tokens(text)) == list(said.get_tokens(text))

def test_every_notebook_is_a_page(built):
    made = {p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html")} - {"genindex.html", "search.html"}
    assert sorted(made) == ALL

def test_named_tuples_show_their_fields(built):
    "Not `*args, **kwargs`: every entry of one says what it holds, in the order in which it is unpacked."
    bare, seen = [], 0
    for path in sorted((ROOT/"synthlab").rglob("*.py")):
        at = path.relative_to(ROOT/"synthlab").with_suffix(".html")
        page = (SITE/at).read_text() if (SITE/at).exists() else ""
        for c in (n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef) and "NamedTuple" in map(ast.unparse, n.bases)):
            label = re.sub("[._/]", "-", f"synthlab-{at.with_suffix('')}-{c.name}".lower())
            if not (entry := page.partition(f'<section id="{label}">')[2]): continue
            shown = re.sub(r"<[^>]+>", "", re.search(r"<pre>(.*?)</pre>", entry, re.S)[1])
            if re.findall(r"^ +(\w+) *:", shown, re.M) != [line.target.id for line in c.body if isinstance(line, ast.AnnAssign)]: bare.append(label)
            seen += 1
    assert seen > 50 and bare == []

def test_the_sentence_below_a_title_is_whole(built):
    "Also one that is written in two lines: they end alike in the notebook and on the page."
    words, cut = lambda text: re.findall(r"[^\W\d_]+", text), []
    for at in NOTEBOOKS:
        titles = [c.source for c in nbformat.read(ROOT/(at if at == Path("index.ipynb") else "nbs"/at), 4).cells if c.cell_type == "markdown" and c.source.startswith("# ")]
        quote = re.search(r"\n\n((?:> .*\n?)+)", titles[0]) if titles else None
        page = (SITE/at.with_name(re.sub(r"^\d+[a-z]*_", "", at.stem) + ".html")).read_text()
        seen = re.search(r"<blockquote>(.*?)</blockquote>", page, re.S)
        if quote and not (seen and words(re.sub(r"<[^>]+>", "", seen[1]))[-3:] == words(quote[1])[-3:]): cut.append(at.as_posix())
    assert cut == []

def test_no_page_tells_where_an_object_lies_in_memory(built):
    "A default that is an object needs a name of its own: its address says nothing, and is another in every build."
    assert [p.relative_to(SITE).as_posix() for p in sorted(SITE.rglob("*.html")) if re.search(r"object at 0x[0-9a-f]", p.read_text())] == []

def test_a_link_is_a_link(built):
    "Also one whose words are the name of something that has a page: nothing is shown as it was written."
    assert [p.relative_to(SITE).as_posix() for p in sorted(SITE.rglob("*.html")) if re.search(r"\]\([\w./-]+\.(ipynb|html)\)", p.read_text())] == []

@pytest.mark.parametrize("report", [p.stem for p in sorted((ROOT/"nbs").glob("*.ipynb"))])
def test_every_table_of_a_report_is_on_its_page(built, report):
    "Also one that comes after a sentence that was displayed."
    outputs = [o["data"] for c in json.loads((ROOT/f"nbs/{report}.ipynb").read_text())["cells"] for o in c.get("outputs", []) if "data" in o]
    tables = sum("".join(data.get("text/html", "")).count("<table") for data in outputs if "text/markdown" not in data)
    assert (SITE/f"{report}.html").read_text().count("<table") >= tables

@pytest.fixture(scope="module")
def url(built):
    "The site, served on this machine."
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown(); server.server_close()

@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists(): absent(f"there is no browser at {CHROMIUM}: `apt-get install chromium` brings it")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield b
        b.close()

class Page:
    "One page in a window of some width, with everything that went wrong while it was read."
    def __init__(self, browser, url, width=1280, dark=False):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
        self.wrong, self.url = [], url
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.wrong.append(f"console: {m.text}"))
        self.page.on("pageerror", lambda e: self.wrong.append(f"script: {e}"))
        left = "net::ERR_ABORTED", f"{url}/_static/icon.svg"        # the icon may be on its way when the next page is opened
        self.page.on("requestfailed", lambda r: (r.failure, r.url) == left or self.wrong.append(f"failed: {r.url}"))
        self.page.on("response", lambda r: r.status >= 400 and self.wrong.append(f"{r.status}: {r.url}"))
        self.page.on("request", lambda r: r.url.startswith(("data:", url)) or self.wrong.append(f"asks another host: {r.url}"))

    def open(self, path):
        self.wrong.clear()
        self.page.goto(f"{self.url}/{path}", wait_until="load")
        self.page.evaluate("() => window.MathJax?.startup?.promise")        # formulas are set when this is done
        return self.page

    def __enter__(self): return self
    def __exit__(self, *args): self.page.close()

WIDER = """() => {
    const wide = document.documentElement.clientWidth, scrolls = e => /auto|scroll|hidden/.test(getComputedStyle(e).overflowX);
    const inBox = e => { for (let p = e.parentElement; p && p !== document.body; p = p.parentElement) if (scrolls(p)) return true; return false };
    const out = [...document.querySelectorAll('main *, article *, .content *')].filter(e => {
        const r = e.getBoundingClientRect();
        return r.width > 1 && r.right > wide + 1 && getComputedStyle(e).visibility !== 'hidden' && !inBox(e) });
    const names = out.map(e => e.tagName + '.' + (e.getAttribute('class') || '') + ': ' + e.textContent.trim().slice(0, 40));
    if (document.documentElement.scrollWidth > wide) names.push('the page: ' + document.documentElement.scrollWidth + ' px');
    return names }"""

@pytest.mark.parametrize("path", PAGES)
def test_page_opens_without_an_error(browser, url, path):
    with Page(browser, url) as p:
        page = p.open(path)
        assert page.locator("h1").first.inner_text().strip(" ¶#") and not p.wrong, p.wrong

def test_formulas_are_set(browser, url):
    with Page(browser, url) as p:
        page = p.open("metrics/crps.html")
        formulas, raw = page.locator("mjx-container"), page.locator("article .math").all_inner_texts()
        assert formulas.count() == len(raw) > 5
        assert all(formulas.nth(i).locator("svg path, svg use").count() for i in range(formulas.count()))
        assert page.locator("mjx-merror, [data-mjx-error]").count() == 0 and not p.wrong, p.wrong

def test_search_finds_a_name(browser, url):
    with Page(browser, url) as p:
        page = p.open("index.html")
        page.get_by_placeholder("Search").first.fill("afcrps_ensemble")
        page.get_by_placeholder("Search").first.press("Enter")
        found = page.locator("#search-results li a")
        found.first.wait_for(timeout=20_000)
        page.locator("#search-results .search-summary", has_text="finished").wait_for(timeout=20_000)
        assert any("metrics/crps.html" in a for a in found.evaluate_all("all => all.map(a => a.href)")) and not p.wrong, p.wrong

def test_the_sidebar_is_folded_but_where_one_is(browser, url):
    "Labs and floors are one line each; the one with the page in it stands open, and says which page that is."
    with Page(browser, url) as p:
        for path, stands_open in ("index.html", []), ("labs/market/judging.html", ["The market lab"]), ("metrics.html", ["Metrics"]), ("train.html", ["The market lab"]):
            page = p.open(path)
            opened = page.locator(".sidebar-tree li.toctree-l1:has(> input:checked) > a").all_inner_texts()
            here = page.locator(".sidebar-tree .current-page > a").count()
            assert opened == stands_open and here == (path != "index.html") and not p.wrong, (path, opened, p.wrong)
        assert page.locator(".sidebar-tree li.toctree-l1.has-children").count() == 5 + len(FLOORS)

@pytest.fixture(scope="module")
def small(browser, url):
    "One small window for all pages: a new one would read the scripts of the site anew."
    with Page(browser, url, width=400) as p: yield p

SCROLLS = """() => [...document.querySelectorAll('article table')].filter(t => {
    for (let e = t; e && e.tagName !== 'ARTICLE'; e = e.parentElement)
        if (e.scrollWidth > e.clientWidth + 1 && /auto|scroll|hidden/.test(getComputedStyle(e).overflowX)) return true;
    return false }).map(t => t.innerText.trim().slice(0, 60))"""

@pytest.mark.parametrize("path", ALL)
def test_nothing_is_wider_than_the_window(small, path):
    "On a telephone what cannot wrap scrolls in a box of its own; in a window of 1400 no table does."
    page = small.open(path)
    assert page.evaluate(WIDER) == [] and not small.wrong, small.wrong
    page.set_viewport_size({"width": 1400, "height": 900})
    scrolls = page.evaluate(SCROLLS)
    page.set_viewport_size({"width": 400, "height": 900})
    assert scrolls == []

FRONT = """() => { const front = document.querySelector('div.front'); return {said: front.querySelectorAll('li').length,
    images: [...front.querySelectorAll('img')].filter(i => i.naturalWidth && i.alt.trim()).length, ends: front.getBoundingClientRect().bottom,
    open: document.querySelectorAll('div.cell_input').length - document.querySelectorAll('details.hide div.cell_input, details.hide > div.cell_input').length} }"""

@pytest.mark.parametrize("report", ["train", "emulate", "walk_forward"])
def test_a_report_begins_with_what_was_found(browser, url, report):
    with Page(browser, url, width=1400) as p:
        seen = p.open(f"{report}.html").evaluate(FRONT)
        assert (seen["said"], seen["images"], seen["open"]) == (3, 1, 0) and seen["ends"] <= 900 and not p.wrong, (seen, p.wrong)

# --- the page of a report, as `synthlab report` writes it -------------------------------------------------------------------------------

FILED = "train", "walk_forward", "emulate", "estimate"      # charts alone; long tables; the largest; many small panels

@pytest.fixture(scope="module")
def filed(tmp_path_factory):
    "Pages of committed reports in a folder."
    folder = tmp_path_factory.mktemp("filed")
    for name in FILED: (folder/f"{name}.html").write_text(to_html(nbformat.read(ROOT/f"nbs/{name}.ipynb", 4)))
    return folder.as_uri()

SEEN = """() => {
    const box = e => e.getBoundingClientRect(), all = query => [...document.querySelectorAll(query)];
    const notes = all('.terms').map(box), front = document.querySelector('.front');
    return {scrolls: all('.jp-OutputArea-output, .jp-RenderedMarkdown').filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.trim().slice(-60)),
            without: all('img').filter(e => !e.alt.trim()).length, images: all('.front img').length, front: box(front).bottom,
            said: front.querySelectorAll('li').length, open: all('details.code[open]').length, code: all('details.code').length,
            overlaps: notes.filter((n, i) => i && n.top < notes[i - 1].bottom && n.left === notes[i - 1].left).length,
            paper: getComputedStyle(document.querySelector('.front img')).backgroundColor, ground: getComputedStyle(document.body).backgroundColor} }"""

@pytest.mark.parametrize("report", FILED)
def test_the_page_of_a_report(browser, filed, report):
    "The finding is on the first screen, code is folded, images have words, nothing scrolls sideways; on a telephone only what is in a box of its own."
    with Page(browser, filed, width=1400) as p:
        page = p.open(f"{report}.html")
        seen = page.evaluate(SEEN)
        assert (seen["said"], seen["images"], seen["without"], seen["open"], seen["overlaps"], seen["scrolls"]) == (3, 1, 0, 0, 0, [])
        assert seen["front"] <= 900 and seen["code"] > 3 and page.evaluate(WIDER) == [] and not p.wrong, p.wrong
        page.set_viewport_size({"width": 400, "height": 900})
        assert page.evaluate(WIDER) == []
        page.emulate_media(color_scheme="dark")
        seen = page.evaluate(SEEN)
        brightness = lambda colour: sum(map(float, re.findall(r"[\d.]+", colour)[:3]))
        assert brightness(seen["paper"]) == 765 and brightness(seen["ground"]) < 200
