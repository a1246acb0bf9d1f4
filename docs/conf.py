"The documentation site: the notebooks as staged by `stage.py`, rendered by MyST-NB."
import re, sys
from functools import cache
from importlib import metadata

from furo.navigation import get_navigation_tree
from sphinx.environment.adapters.toctree import global_toctree_for_doc
from sphinx.highlighting import PygmentsBridge
from sphinx.search.en import SearchEnglish
from sphinx.util.osutil import relative_uri

from lexing import FastLexer

sys.modules["rfc3987_syntax"] = None        # grammars for addresses that no notebook has: three seconds of an import

project, author, release = "synthlab", "synthlab authors", metadata.version("synthlab")
html_title = f"{project} {release}"
extensions = ["myst_nb", "sphinx.ext.mathjax"]

nb_execution_mode = "off"                           # notebooks carry their outputs
nb_merge_streams = True
nb_code_prompt_show, nb_code_prompt_hide = "▸ Source", "▾ Source"
myst_enable_extensions = ["dollarmath", "amsmath", "attrs_inline"]
myst_heading_anchors = 3                            # `[…](page.ipynb#a-heading)` is a link that is checked

html_theme = "furo"
html_css_files = ["style.css"]
html_favicon = "icon.svg"
html_copy_source = html_show_sourcelink = html_show_copyright = html_show_sphinx = False
pygments_style, pygments_dark_style = "friendly", "github-dark"

# formulas without a network: the script comes with the `sphinx-mathjax-offline` wheel
mathjax = next(f for f in metadata.files("sphinx-mathjax-offline") if f.name == "tex-svg.js").locate()
html_static_path = ["style.css", str(mathjax)]
mathjax_path, mathjax_options = mathjax.name, {"defer": "defer"}

class English(SearchEnglish):
    "A word has one stem, on whichever page."
    stem = cache(SearchEnglish.stem)

@cache
def whole_sidebar(builder):
    "The sidebar of the home page. A page has the same but for its own place; made anew for each it is half the time."
    tree = global_toctree_for_doc(builder.env, "index", builder, tags=builder.tags, titles_only=True, maxdepth=-1)
    return get_navigation_tree(builder.render_partial(tree)["fragment"])

def no_sidebar(app, page, template, context, doctree): context["toctree"] = lambda **_: ""

def sidebar(app, page, template, context, doctree):
    here, whole = app.builder.get_target_uri(page), whole_sidebar(app.builder)
    def seen_from_here(m):
        path, *heading = m[2].split("#")
        link = '<li class="%s"><a class="%sreference internal" href="%s">'
        if m[2] == here: return link % (f"{m[1]} current current-page", "current ", "#")
        return link % (m[1], "", "#".join([relative_uri(here, path), *heading]))
    links = re.sub('<li class="([^"]*)"><a class="reference internal" href="([^"]*)">', seen_from_here, whole)
    first, *branches = links.split('<li class="toctree-l1')
    for i, branch in enumerate(branches):           # the one with the page in it stands open
        if " current-page" in branch:
            if not branch.startswith(" current"): branch = " current" + branch
            branches[i] = branch.replace('class="toctree-checkbox"', 'class="toctree-checkbox" checked', 1)
    context["furo_navigation_tree"] = '<li class="toctree-l1'.join([first, *branches])

@cache
def formatter(bridge, **options): return bridge.formatter(**options, **bridge.formatter_args)

PygmentsBridge.get_formatter = formatter        # one a page and not one a block of code: each writes its style down

def setup(app):
    app.add_search_language(English)
    app.add_lexer("python", FastLexer)
    app.connect("html-page-context", no_sidebar, 400)       # before the theme, at 500
    app.connect("html-page-context", sidebar, 600)
