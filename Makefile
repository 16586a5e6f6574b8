# On Debian 12 each target installs what it needs by itself, as root or with sudo.

VENV ?= .venv
PYTHON := $(VENV)/bin/python
TRAPLINE := $(VENV)/bin/trapline
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -q

PROGRAMS := qemu-system-x86_64 nasm gcc ld objcopy xorriso grub-mkimage
PACKAGES := qemu-system-x86 seabios nasm gcc binutils xorriso grub-common python3-venv
# Guests in this process run Python at every exception: to measure coverage there would take minutes.
MEASURED := tests/arch tests/hypervisor tests/machine
# Neighbours stay together: they share what one guest's run left.
PARALLEL := --numprocesses auto --maxprocesses 8 --dist worksteal
TESTGUESTS := $(PYTHON) -m tools.testguests

.DEFAULT_GOAL := help
.PHONY: help setup guests test demo bench soak defects schema format clean

help: ## say what each target does
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## boot Debian's kernel with every exception forced, and show what was recorded
	@$(TESTGUESTS) linux_kernel linux_initrd > /dev/null || { $(APT) update && $(TESTGUESTS) linux_kernel linux_initrd; }
	$(TRAPLINE) run "$$($(TESTGUESTS) linux_kernel)" --initrd "$$($(TESTGUESTS) linux_initrd)" \
	    --append "console=ttyS0 quiet panic=-1" --exceptions all --timeout 300

test: setup guests ## check style and types, run all tests, on real guests too; some minutes
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -rs $(MEASURED) -m "not qemu and not soak" --cov --cov-branch --cov-report=
	$(PYTHON) -m coverage report --include='src/trapline/arch/*,src/trapline/hypervisor/*' --fail-under=95
	$(PYTHON) -m pytest -rs $(PARALLEL) tests $(MEASURED:%=--ignore=%)
	$(PYTHON) -m pytest -rs $(MEASURED) -m "qemu and not soak"

soak: setup guests ## boot Linux with every exception forced, again and again; a quarter of an hour
	$(PYTHON) -m pytest -m soak

defects: setup ## plant known defects, one at a time, and see that the tests notice each
	$(PYTHON) -m tools.plant_defects

bench: setup guests ## measure the cost against QEMU alone and QEMU -d int
	$(PYTHON) -m benchmarks.run

schema: setup ## write docs/run.schema.json, the schema of `run --json`, anew
	$(PYTHON) -m tools.run_schema

setup: $(VENV)/.installed ## install QEMU and the tools of the tests, and trapline into .venv

guests: setup ## fetch the software that the tests boot
	@$(TESTGUESTS) > /dev/null || { $(APT) update && $(TESTGUESTS) > /dev/null; } \
	    || echo "some guests cannot be had: their tests will be skipped"

docs: setup ## write the pages that are made from the source: docs/api.md and docs/run.schema.json
	$(PYTHON) -m tools.api_reference
	$(PYTHON) -m tools.run_schema

format: setup ## put the source into its one form
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

clean: ## remove all that the other targets leave here
	rm -rf .venv build dist .coverage .coverage.* htmlcov .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests tools -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.installed: Makefile pyproject.toml $(VENV)/.programs
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[symbols,dev]'
	@touch $@

$(VENV)/.programs:
	@missing=; for program in $(PROGRAMS); do command -v $$program > /dev/null || missing=$$program; done; \
	python3 -c 'import ensurepip' 2> /dev/null || missing=python3-venv; \
	test -z "$$missing" || { $(APT) update && $(APT) install --yes --no-install-recommends $(PACKAGES); }
	@mkdir -p $(VENV) && touch $@
