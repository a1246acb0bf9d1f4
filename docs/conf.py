"The documentation site: the notebooks as staged by `stage.py`, rendered by MyST-NB."
from importlib import metadata

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
