# Works from a fresh clone with Python 3.11+ and GNU make: `make demo` and `make test` set up what they need.
# Override on the command line: PYTHON= (the interpreter for .venv), MICROPYTHON= (another unix port).

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-stamp
BUILD := build

# Debian keeps ip, nft, sysctl and ethtool in sbin, which is not on every user's PATH.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
MICROPYTHON ?= $(CURDIR)/$(BIN)/micropython
export MICROPYTHON

# The paths inside a virtual environment are absolute: one that was copied here with the tree is another tree's.
$(shell [ ! -f $(STAMP) ] || [ "$$(cat $(STAMP))" = "$(CURDIR)" ] || rm -f $(STAMP))

.PHONY: help setup system-packages test-packages lint format test demo soak soak-lab outages flood differential fuzz mutants conformance-mutants wire-bench size conformance advertise-bench fleet-bench bench bpf firmware image clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /#/' | \
		while IFS='#' read -r target text; do printf '  %-16s %s\n' "$$target" "$$text"; done

setup: $(STAMP) system-packages  ## make .venv with the pinned dependencies; check (as root: install) the Debian packages

$(STAMP): requirements-dev.txt pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "haaro: Python 3.11 or newer not found. Install it, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@[ ! -f $(STAMP) ] || rm -f $(STAMP)
	@echo "haaro: setting up $(VENV) with $(PYTHON) (once; again only when the pins change)"
	@./host_tools/system_packages.sh "$(PYTHON)"
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@echo "$(CURDIR)" > $(STAMP)

system-packages:
	@./host_tools/system_packages.sh

test-packages:
	@./host_tools/system_packages.sh --tests

lint: $(STAMP)  ## ruff (rules and format), codespell, mypy over wire, core and host
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

format: $(STAMP)  ## rewrite the files as `make lint` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Most tests wait for processes in namespaces, so that more files than cores run at once (JOBS=).
test: setup test-packages bpf  ## pytest, the suite inside MicroPython's unix port, no key in what is left
	@status=0; \
	$(BIN)/python -m pytest -n $(or $(JOBS),3) --dist loadfile || status=1; \
	"$(MICROPYTHON)" -X heapsize=384k unix_port_tests/run.py || status=1; \
	$(BIN)/python -m tests.canary.scan $(BUILD) || status=1; \
	exit $$status

demo: setup bpf  ## three offices in network namespaces find the direct path; report in build/demo
	$(BIN)/haaro lab demo --out $(BUILD)/demo

# SEED= and DAYS= choose another run.
soak: $(STAMP)  ## 30 simulated days of faults in one process: nothing crashes, grows or sticks (20 minutes)
	$(BIN)/haaro simulate --soak-days $(or $(DAYS),30) --seed $(or $(SEED),1)

soak-lab: setup bpf  ## ten minutes of demo traffic: heap growth, token renewals; report in build/soak
	$(BIN)/haaro lab soak --out $(BUILD)/soak

# RUNS= and JOBS= choose how often and how many side by side; goes on where it was interrupted.
outages: setup  ## every fault 20 times in namespaces and in simulation, write docs/outages.md (hours)
	$(BIN)/haaro lab outages --runs $(or $(RUNS),20) --jobs $(or $(JOBS),4) --out $(BUILD)/outages

# MESSAGES= sends fewer.
flood: setup  ## 10^6 HoTI and CoTI at one router: heap kept, traffic lost (25 minutes), write docs/flood.md
	$(BIN)/python -m tests.bench.flood $(if $(MESSAGES),--messages $(MESSAGES))

# SEED= repeats a run, COUNT= is the number of messages.
differential: $(STAMP)  ## wire on CPython and MicroPython: 100000 generated messages, compared
	$(BIN)/python -m tests.differential.run --count $(or $(COUNT),100000) $(if $(SEED),--seed $(SEED))

# SECONDS= is shared out among the parsers; KEEP=1 merges what was found into tests/fuzz/corpus.
fuzz: $(STAMP)  ## fuzz every parser of wire by coverage, 10 minutes (SECONDS=600)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-fuzz.txt
	$(BIN)/python -m tests.fuzz.run --seconds $(or $(SECONDS),600) $(if $(KEEP),--keep)

# FILES= names some files of firmware/haaro/wire, or --survivors: only what no test killed the last time.
mutants: $(STAMP)  ## mutation testing of wire (half an hour), write docs/mutation.md
	$(BIN)/python -m tests.mutation.run $(FILES)

conformance-mutants: $(STAMP)  ## each rule of RFC 6521 switched off: its tests must turn red (20 minutes)
	$(BIN)/python -m tests.conformance_mutants.run $(IDS)

wire-bench: $(STAMP)  ## parse and build rates, worst cases and heap of wire, write docs/wire.md
	$(BIN)/python -m tests.wire_bench.run

size: $(STAMP)  ## .mpy octets of each board and module, heap of imports and state, beside their limits
	@$(BIN)/python -m tests.size.run

conformance: $(STAMP)  ## write docs/conformance.md from the requirement ids in the tests
	@$(BIN)/python -m tests.meta.conformance

advertise-bench: $(STAMP)  ## write docs/advertisement.md: how short advertisements get
	@$(BIN)/python -m tests.bench.advertisement

fleet-bench: $(STAMP)  ## host time for the keys of 10, 20 and 40 sites, write docs/fleet.md
	@$(BIN)/python -m tests.bench.fleet_keys

# QUICK=1 is one short round, under five minutes, and writes build/bench.json only. ROUNDS= and MINUTES= bound a full run.
bench: setup bpf  ## the data planes beside plain forwarding and other daemons (root, 20 minutes): docs/performance.md
	@./host_tools/system_packages.sh --bench
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@mkdir -p $(BUILD)/bench
	@for each in tun_forwarder packets; do \
		gcc -O2 -Wall -Wextra -Werror -D_GNU_SOURCE -o $(BUILD)/bench/$$each bench/$$each.c || exit 1; done
	$(BIN)/python -m bench.run --out $(BUILD) $(if $(QUICK),--quick) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(MINUTES),--minutes $(MINUTES))

# BOARD= is a folder of boards/ with a board.json.
firmware: $(STAMP)  ## build/firmware/BOARD: program, filesystem image (UF2, ROMFS), manifest; BOARD=OPENWRT: packages
	@$(BIN)/python -m haaro_host.flash.build "$(BOARD)"

image: firmware  ## build/firmware/BOARD/BOARD.bin (.uf2): the same with your MicroPython (MICROPYTHON_BIN=firmware.bin)
	@$(BIN)/python -m haaro_host.flash.merge "$(BOARD)" "$(MICROPYTHON_BIN)"

BPF := firmware/kernel_plane
BPF_FLAGS := -O2 -g -ffile-prefix-map=$(CURDIR)/= -fdebug-compilation-dir=. -Wall -Wextra -Werror -mcpu=v3 -I/usr/include/$(shell uname -m)-linux-gnu

# Without clang there is nothing to build, and the userspace plane carries the packets.
bpf:  ## the kernel plane's programs for both byte orders, by clang: firmware/kernel_plane/*.o
	@./host_tools/system_packages.sh --bpf
	@if command -v clang >/dev/null; then \
		$(MAKE) --no-print-directory $(foreach order,little big,$(BPF)/$(order).o $(BPF)/home_agent_$(order).o); fi

$(BPF)/little.o $(BPF)/home_agent_little.o: BPF_TARGET := bpfel
$(BPF)/big.o $(BPF)/home_agent_big.o: BPF_TARGET := bpfeb
$(BPF)/little.o $(BPF)/big.o: $(BPF)/haaro.bpf.c $(BPF)/tunnel.h Makefile
$(BPF)/home_agent_little.o $(BPF)/home_agent_big.o: $(BPF)/home_agent.bpf.c $(BPF)/tunnel.h Makefile
$(BPF)/%.o:
	clang -target $(BPF_TARGET) $(BPF_FLAGS) -c $< -o $@
	@if command -v llvm-strip >/dev/null; then llvm-strip -g $@; fi

clean:  ## remove build/ and caches (.venv stays: remove it by hand to set up anew)
	rm -rf $(BUILD) .pytest_cache .mypy_cache .ruff_cache .hypothesis $(BPF)/*.o
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
