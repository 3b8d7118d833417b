# Two targets do everything on a bare machine with Python 3.11 or newer:
#   make demo    environment, install, sample slide, segmentation, picture
#   make test    environment, install, whole suite
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
DEMO_SIZE ?= 2048
# Until a trained model ships: a U-Net whose weights are set by hand.
DEMO_MODEL ?= $(DEMO)/threshold.pt

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test lint install clean

help:
	@echo "make demo     install, make a sample slide, segment it, draw it into $(DEMO)/"
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
	rm -rf $(DEMO)/slide.zarr $(DEMO)/overlay.png
	mkdir -p $(DEMO)
	$(BIN)/bigunet sample $(DEMO)/slide.zarr --size $(DEMO_SIZE) --seed 0
	$(BIN)/python -m benchmarks.threshold_model $(DEMO_MODEL)
	$(BIN)/bigunet segment $(DEMO)/slide.zarr --model $(DEMO_MODEL) --name threshold
	$(BIN)/bigunet preview $(DEMO)/slide.zarr --labels threshold $(DEMO)/overlay.png
	@echo
	@echo "slide    $(DEMO)/slide.zarr"
	@echo "model    $(DEMO_MODEL)"
	@echo "labels   $(DEMO)/slide.zarr/labels/threshold"
	@echo "picture  $(DEMO)/overlay.png  <- open this"

test: $(STAMP)
	$(BIN)/python -m pytest
	$(MAKE) lint

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
