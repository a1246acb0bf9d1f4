"""Build the site, `_docs/html`: `stage.py` writes its pages, Sphinx renders them. A warning is an error."""
import gc, os, shutil, sys

import stage
from sphinx.cmd.build import main

if __name__ == "__main__":
    gc.freeze(); gc.set_threshold(500_000, 20, 20)  # a builder makes much that stays
    os.chdir(stage.ROOT)                            # a relative path, or nbdev skips all below a folder with a dot
    stage.stage()
    shutil.rmtree("_docs", ignore_errors=True)      # a page that is gone, a warning that was given once
    gc.freeze()
    sys.exit(main(["-q", "-W", "--keep-going", "-b", "html", "-c", "docs", "_site_src", "_docs/html"]))
