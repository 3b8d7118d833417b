# Two targets do everything on a bare machine with Python 3.11 or newer:
#   make demo    environment, install, sample slide, segmentation, table, picture
#   make test    environment, install, whole suite
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
DEMO_SIZE ?= 2048

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test lint install clean

help:
	@echo "make demo     install, make a sample slide, segment, measure and draw it in $(DEMO)/"
	@echo "make test     install, run all tests and checks"
	@echo "make lint     install, format check, lint, types"
	@echo "make install  the environment in $(VENV) only"
	@echo "make clean    remove what the demo and the tests made (not $(VENV))"

install: $(STAMP)

# The stamp is written last: an install that was interrupted is done again.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install -c constraints.txt --group dev -e .
	touch $@

# Begins anew each time; the commands are the ones a user would type.
demo: $(STAMP)
	rm -rf $(DEMO)/slide.zarr $(DEMO)/nuclei.csv $(DEMO)/overlay.png
	mkdir -p $(DEMO)
	$(BIN)/bigunet sample $(DEMO)/slide.zarr --size $(DEMO_SIZE) --seed 0
	$(BIN)/bigunet segment $(DEMO)/slide.zarr --model nuclei --min-area 30
	$(BIN)/bigunet evaluate $(DEMO)/slide.zarr/labels/nuclei $(DEMO)/slide.zarr/labels/truth
	$(BIN)/bigunet measure $(DEMO)/slide.zarr --labels nuclei --output $(DEMO)/nuclei.csv
	$(BIN)/bigunet preview $(DEMO)/slide.zarr --labels nuclei $(DEMO)/overlay.png
	@echo
	@echo "slide    $(DEMO)/slide.zarr"
	@echo "labels   $(DEMO)/slide.zarr/labels/nuclei, truth"
	@echo "table    $(DEMO)/nuclei.csv"
	@echo "picture  $(DEMO)/overlay.png  <- open this"

# On two cores two processes leave a third of the time idle: tests of faults wait for processes.
test: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist worksteal
	$(MAKE) lint

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
