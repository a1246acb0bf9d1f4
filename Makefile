# `make` alone lists the targets. Each works on a fresh clone: the first one run makes the environment.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

BIN   := $(VENV)/bin
READY := $(VENV)/.ready
# Every worker of the tests computes on one thread: as many workers as cores is then what the machine can do.
# Groups start in the order that tests/conftest.py gives them, dearest first, and rewritten assertions are kept for the next run.
TESTS := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
SPREAD := -n logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

help:           ## this list
	@grep -E '^[a-z]+: ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# Of what pip says, a line now and then: what it looks for, what is large, and that it unpacks.
define installing
{ n=0; while read -r does what more; do case "$$does" in \
   Collecting|Processing) n=$$((n + 1)); if [ $$((n % 25)) = 0 ]; then echo "  $$n packages found, $${what##*/} the latest"; fi;; \
   Downloading) case "$$more" in \([0-9][0-9]*MB*) echo "  fetching $${what##*/} $$more";; esac;; \
   Installing) if [ "$$what" = collected ]; then echo "  unpacking all of them: the longest silence, a minute or two"; fi;; \
  esac; done; }
endef

$(READY): settings.ini setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "synthlab needs Python 3.11 or later; choose one with make PYTHON=...")'
	@echo "making the environment in $(VENV): some 250 packages, torch the largest; a few minutes, the first time"
	@$(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.failed
	@{ $(BIN)/python -m pip install --progress-bar off --disable-pip-version-check --constraint constraints.txt --editable ".[dev]" \
	 || touch $(VENV)/.failed; } | $(installing)
	@test ! -e $(VENV)/.failed
	@echo "the environment is there; source $(BIN)/activate makes its commands known to this shell"
	@touch $@

# papermill prints what the cells print, as it comes. A report that fails is kept under a name of its own, beside the last good one.
define report
@mkdir -p runs
@echo "running nbs/$(1).ipynb; its page will be runs/$(1).html"
@$(BIN)/papermill --stdout-file - --no-progress-bar nbs/$(1).ipynb runs/.$(1).ipynb $(ARGS) || \
 { mv -f runs/.$(1).ipynb runs/$(1).failed.ipynb; echo "$(1) failed; see the last line above, or runs/$(1).failed.ipynb"; exit 1; }
@mv -f runs/.$(1).ipynb runs/$(1).ipynb
@$(BIN)/synthlab report runs/$(1).ipynb
endef

train: $(READY) ## train, evaluate and report (ARGS="-p horizon 24"): runs/train.ipynb and runs/train.html
	$(call report,train)

evaluate: $(READY) ## judge a finished run again (ARGS="-p run_dir runs/NAME"): runs/evaluate.ipynb and .html
	$(call report,evaluate)

test: $(READY)  ## everything a change must pass: package, notebooks, faults, experiments, site
	$(TESTS) $(SPREAD) $(ARGS)

quick: $(READY) ## the tests nearest to what changed, in 90 seconds; says what it left out (ARGS=--list: what it would run)
	@$(BIN)/python tests/nearest.py $(ARGS)

docs: $(READY)  ## build the site; open _docs/html/index.html
	@$(BIN)/python docs/build.py
	@echo "site: _docs/html/index.html"

lab: $(READY)   ## edit the notebooks in JupyterLab; saved clean, outputs of reports go to runs/ (as root: ARGS=--allow-root)
	$(BIN)/jupyter lab --config=docs/jupyter_config.py $(ARGS)

sync: $(READY)  ## write synthlab/, README.md and its pictures from the notebooks, and clean the notebooks
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean
	$(BIN)/nbdev-clean --fname index.ipynb
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/readme.py

outputs: $(READY) ## run every library notebook and guide and save what it printed and drew (reports: make train)
	{ find nbs -mindepth 2 -name '*.ipynb' -not -path '*/.*' | sort; echo index.ipynb; } | xargs -n 1 -P 2 $(BIN)/nbdev-test --save --n-workers 0
	@$(MAKE) --no-print-directory sync

installcheck: $(READY) ## with a network: the wheel in an empty folder and a fresh environment, and a report of each lab there
	@$(BIN)/python tests/installed.py $(ARGS)

clean:          ## remove everything the other targets made, finished runs included
	rm -rf $(VENV) runs build dist *.egg-info _docs _proc _site_src .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help train evaluate test quick docs lab sync outputs installcheck clean
