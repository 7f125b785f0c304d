# Needs python3 (3.11 or newer) and make; everything else goes into .venv.
#
#   make demo        learn an edit from the shipped pairs, pull its slider, measure it: a few minutes on a CPU
#   make test        lint, types and the tests
#   make test-slow   the tests that take minutes
#   make bench       the speed of training and sampling against the published loop, on the small FLUX
#   make browser     Chromium for the tests that look at reports, which are skipped without; where apt-get can

PYTHON ?= python3
DEMO_SEEDS ?= 8
IN_TRAIN := cd train && ../.venv/bin/python
READY := .venv/ready
READY_TO_TEST := .venv/ready-to-test

.PHONY: demo test test-slow bench browser

demo: $(READY)
	$(IN_TRAIN) train_image_script.py --c=train_image
	$(IN_TRAIN) gen_image_script.py --c=train_image
	$(IN_TRAIN) eval_scripts/edit_table.py --c=train_image --seeds=$(DEMO_SEEDS)
	@echo "pictures over scales:  train/output/eval/edits/grid.png (larger ones in train/output/eval/image)"
	@echo "report:                train/output/eval/edits/report.html"

test: $(READY_TO_TEST)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m pytest -m "not slow"

test-slow: $(READY_TO_TEST)
	.venv/bin/python -m pytest -m slow

bench: $(READY)
	.venv/bin/python -m bench.train
	.venv/bin/python -m bench.sample

browser:
	command -v chromium || command -v chromium-browser || command -v google-chrome || (apt-get update && apt-get install --yes --no-install-recommends chromium)

# Done once, and again when requirements.txt changes.
$(READY): requirements.txt
	$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"expected Python 3.11 or newer, found {v}; give another with PYTHON=")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet uv
	.venv/bin/uv pip install --python .venv/bin/python --requirement requirements.txt
	touch $@

# The same with the extras and what tests.
$(READY_TO_TEST): $(READY) requirements-dev.txt
	.venv/bin/uv pip install --python .venv/bin/python --requirement requirements-dev.txt
	touch $@
