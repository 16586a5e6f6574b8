# On Debian 12 and 13 each target installs what it needs by itself, as root or with sudo.

VENV ?= .venv
PYTHON := $(VENV)/bin/python
TRAPLINE := $(VENV)/bin/trapline
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -q

PROGRAMS := qemu-system-x86_64 nasm gcc g++ ld objcopy xorriso grub-mkimage chromium-headless-shell node gdb
PACKAGES := qemu-system-x86 seabios ovmf nasm gcc g++ binutils xorriso grub-common chromium-headless-shell nodejs gdb python3-venv
# Not those that run guests on Unicorn: to measure coverage there would take minutes.
MEASURED := tests/arch tests/hypervisor tests/machine
# Work stealing keeps neighbouring tests together: they share the run of a guest. One more than there are processors:
# some tests wait. The tests are compiled before, by one process: each worker would do it for itself.
PARALLEL := --numprocesses $(shell expr $$(nproc) + 1) --maxprocesses 8 --dist worksteal
TESTGUESTS := $(PYTHON) -m tools.testguests

.DEFAULT_GOAL := help
.PHONY: help setup guests test demo bench soak fuzz defects kvm pythons docs format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## boot Debian's kernel with every exception forced, and print the summary
	@$(TESTGUESTS) linux_kernel linux_initrd > /dev/null || { $(APT) update && $(TESTGUESTS) linux_kernel linux_initrd; }
	$(TRAPLINE) run "$$($(TESTGUESTS) linux_kernel)" --initrd "$$($(TESTGUESTS) linux_initrd)" \
	    --append "console=ttyS0 quiet panic=-1" --exceptions all --timeout 300

test: setup guests ## check style and types, and run all tests, also with real guests; some minutes
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy & types=$$!; \
	env -u PYTHONDONTWRITEBYTECODE $(PYTHON) -m pytest --collect-only -q tests > /dev/null; \
	$(PYTHON) -m pytest -rs $(PARALLEL) $(MEASURED) --cov --cov-branch --cov-report= && wait $$types
	$(PYTHON) -m coverage report --include='src/trapline/arch/*,src/trapline/hypervisor/*' --fail-under=95
	$(PYTHON) -m pytest -rs $(PARALLEL) tests $(MEASURED:%=--ignore=%)

soak: setup guests ## boot Linux many times, stop what works again and again, raise ten million exceptions; half an hour
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[soak]'
	$(PYTHON) -m pytest -m soak
	$(PYTHON) -m tools.working_guests

fuzz: setup ## read 10,000 damaged files of each kind, run 10,000 random programs and 1,000 broken kernels; an hour
	$(PYTHON) -m tools.file_fuzzing --files 10000
	$(PYTHON) -m tools.fuzzing.survival --programs 10000
	$(PYTHON) -m tools.broken_guests --guests 1000

defects: setup ## plant known defects, one at a time, and check that the tests notice each; hours
	$(PYTHON) -m tools.plant_defects

bench: setup guests ## compare the speed with plain QEMU and with QEMU -d int, and write the figures of README; 20 minutes
	$(PYTHON) -m benchmarks.run --save
	$(PYTHON) -m tools.cost_section

setup: $(VENV)/.installed ## install QEMU and the tools of the tests, and trapline into .venv

guests: setup ## download the kernels and disks that the tests boot, axe-core, and a client of debug adapters
	@$(TESTGUESTS) > /dev/null || { $(APT) update && $(TESTGUESTS) > /dev/null; } \
	    || echo "some guests could not be downloaded: their tests will be skipped"
	@$(PYTHON) -m tools.axe > /dev/null || echo "pages will not be checked for accessibility"
	@$(PYTHON) -m tools.debug_client > /dev/null || echo "the debug adapter will not be tested by VS Code's client"

kvm: setup ## run guests under KVM on an AMD host that QEMU emulates; a quarter of an hour
	$(PYTHON) -m tools.kvm

pythons: setup ## run the tests that need no QEMU with Python 3.12, 3.13 and 3.14; some minutes
	$(PYTHON) -m tools.pythons

docs: setup ## write what is made from the source: docs/api.md, docs/run.schema.json, and from figures the costs
	$(PYTHON) -m tools.api_reference
	$(PYTHON) -m tools.run_schema
	$(PYTHON) -m tools.cost_section

format: setup ## format the source
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

clean: ## remove everything that the other targets create here
	rm -rf .venv build dist .coverage .coverage.* htmlcov .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests tools -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.installed: Makefile pyproject.toml $(VENV)/.programs
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[qemu,symbols,dev]'
	@touch $@

$(VENV)/.programs: Makefile
	@missing=; for program in $(PROGRAMS); do command -v $$program > /dev/null || missing=$$program; done; \
	python3 -c 'import ensurepip' 2> /dev/null || missing=python3-venv; \
	test -e /usr/share/OVMF/OVMF_CODE_4M.fd || missing=ovmf; \
	test -z "$$missing" || { $(APT) update && $(APT) install --yes --no-install-recommends $(PACKAGES); }
	@mkdir -p $(VENV) && touch $@
