# Two commands do everything: `make demo` and `make test`. The rest is for developers.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LOCK   := tools/requirements-dev.txt

.PHONY: demo test venv chaos faults node arm64 fuzz bench lint lock image deploy audit sbom clean help
help:            ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/.ready: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: install it, or say which one it is, as make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv is missing: apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV) (about half a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/.ready   ## the whole product on this machine: control plane, broker, bridge, three virtual boards
	@$(BIN)/boardlet up

test: $(VENV)/.ready   ## the whole test suite
	@-$(BIN)/python -m controlplane build  # with its progress, and not within the time of the first test
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

chaos: $(VENV)/.ready  ## the model of the protocol under chaos, 3,000 examples of each length, other ones each time (about five minutes)
	@BOARDLET_CHAOS=3000 $(BIN)/python -m pytest tests/chaos/test_machine.py

faults: $(VENV)/.ready ## the fault suite with all its faults (about half an hour); a table, build/faults.json, docs/faults.md
	@BOARDLET_FAULTS=full $(BIN)/python -m pytest --timeout 900 tests/faults

node: $(VENV)/.ready   ## the chart on a whole node: kubelet, containerd, kube-proxy; as root (docs/lab.md)
	@$(BIN)/python -m controlplane build && $(BIN)/python -m node build && $(BIN)/python -m helm version --short
	@BOARDLET_NODE=1 $(BIN)/python -m pytest -s -n 0 tests/container/test_node.py

arm64: $(VENV)/.ready  ## the bridge's image for arm64, built and run by QEMU's emulation; as root (docs/lab.md)
	@$(BIN)/python -m controlplane build
	@BOARDLET_ARM64=1 $(BIN)/python -m pytest -s -n 0 tests/container/test_arm64.py

venv: $(VENV)/.ready   ## .venv with the commands boardlet and boardlet-bridge

FUZZ ?= --inputs 1000000
fuzz: $(VENV)/.ready   ## a million inputs to codecs, core, session, and the board's code on MicroPython (docs/fuzzing.md)
	@$(BIN)/python tests/fuzz/fuzz.py $(FUZZ)

bench: $(VENV)/.ready  ## latencies against their floor, bytes, sizes, start-up; a table, build/bench.json, docs/benchmarks.md
	@$(BIN)/python -m bench --page

bench-fleet: $(VENV)/.ready   ## 10,000 simulated boards on one bridge under load; a table, build/fleet.json, docs/benchmarks.md
	@$(BIN)/python -m bench fleet --page

lint: $(VENV)/.ready   ## ruff, mypy, import layers
	@$(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

lock: $(VENV)/.ready   ## pin every dependency with hashes
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml -o bridge/requirements.txt
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --extra cli --extra dev pyproject.toml -o $(LOCK)

ENGINE ?= podman
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
image:           ## the bridge's container image, the same bytes from the same commit and base
	@$(ENGINE) build --timestamp "$$(git log -1 --format=%ct)" --build-arg REVISION="$$(git rev-parse HEAD)" \
	  -f bridge/Containerfile -t boardlet-bridge -t boardlet-bridge:$(VERSION) .

deploy: $(VENV)/.ready ## bridge/deploy/site.yaml, what the chart makes of its defaults, for those who have no Helm
	@$(BIN)/python -m helm template boardlet bridge/chart -n boardlet-system --set kinds.install=false --set rights.install=false --set secrets.existing=boardlet-site --skip-tests > bridge/deploy/site.yaml

audit: $(VENV)/.ready  ## ask a database of vulnerabilities about every pinned dependency; says so if it cannot be reached (docs/lab.md)
	@$(BIN)/python -m audit

SBOM ?= build/sbom.cdx.json
sbom: $(VENV)/.ready   ## what is in that image, as CycloneDX, from its lock file
	@mkdir -p $(dir $(SBOM)) && $(BIN)/cyclonedx-py requirements bridge/requirements.txt --pyproject pyproject.toml --output-reproducible -o $(SBOM)

clean:           ## remove the virtual environment and build output (caches stay)
	@rm -rf $(VENV) build dist
