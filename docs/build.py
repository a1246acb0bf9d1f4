"""Build the site, `_docs/html`: `stage.py` writes its pages, Sphinx renders them. A warning is an error."""
import gc, os, shutil, sys

import stage
from sphinx.cmd.build import main

if __name__ == "__main__":
    gc.freeze(); gc.set_threshold(500_000, 20, 20)  # a builder makes much that stays
    os.chdir(stage.ROOT)                            # a relative path, or nbdev skips all below a folder with a dot
    print("1/2 the pages, from the notebooks", flush=True)
    stage.stage()
    shutil.rmtree("_docs", ignore_errors=True)      # a page that is gone, a warning that was given once
    gc.freeze()
    print("2/2 the site, from the pages: a minute or two", flush=True)
    sys.exit(main(["-q", "-W", "--keep-going", "-b", "html", "-c", "docs", "_site_src", "_docs/html"]))
