# Everything that is done to edgeos from a checkout; `make` lists it. The virtual environment .venv and the folder build
# are made as needed, and made anew only when what they come from has changed.

PYTHON ?= python3
FUZZ_SECONDS ?= 20
SOAK_SECONDS ?= 600
JOBS ?= $(shell nproc)

VENV := .venv
BIN := $(VENV)/bin
NATIVE := CMakeLists.txt $(wildcard native/kernel/* native/ports/* native/bindings/*)
NATIVE_TESTS := $(wildcard native/tests/* guest/include/*.h guest/include/tcp/*)
CMAKE = $(BIN)/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja
# The kernel's tests load Wasmtime's library from the wheel.
WASMTIME = EDGEOS_WASMTIME="$$($(BIN)/python -c 'from wasmtime import _ffi; print(_ffi.filename)')"
BENCHMARKS := startup chain memory listen density churn scale ports
LOCK_FREE_TESTS := test_executor test_spsc
# Programs that some tests speak to, and their packages; those tests are skipped without.
TEST_PROGRAMS := ip:iproute2 ping:iputils-ping curl:curl unshare:util-linux dig:bind9-dnsutils iperf3:iperf3 \
  traceroute:traceroute memcached:memcached memcslap:libmemcached-tools

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build demo test pytest native aarch64 check bench asan tsan fuzz soak clean

help: ## list these targets
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## (.*)/\1|\2/' | \
	  while IFS='|' read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done

build: $(VENV)/.installed ## build the kernel and install the package, editable, in .venv

demo: $(VENV)/.installed $(VENV)/.net ## ping, curl and a web server through an FWP chain for each client
	@scripts/require --some ip:iproute2 ping:iputils-ping curl:curl unshare:util-linux
	@$(BIN)/python -m edgeos.demo

test: pytest native ## all tests: Python's and the kernel's own

pytest: $(VENV)/.installed $(VENV)/.dev
	@scripts/require --some $(TEST_PROGRAMS)
	@scripts/run-pytest $(BIN)/python

native: build/native/.built
	@$(WASMTIME) scripts/run-tests build/native

aarch64: build/aarch64/.built build/aarch64/.wasmtime ## the kernel's tests, built for aarch64, under emulation
	@EDGEOS_WASMTIME=build/aarch64/wasmtime/linux-aarch64/_libwasmtime.so \
	  RUN_BY="qemu-aarch64-static -L /usr/aarch64-linux-gnu" scripts/run-tests build/aarch64

check: $(VENV)/.installed $(VENV)/.dev ## linter, formatter, types
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy

bench: $(VENV)/.installed $(VENV)/.dev ## short runs of the benchmarks
	for name in $(BENCHMARKS); do $(BIN)/edgeos bench $$name --quick || exit; done

asan: build/asan/.built ## the kernel's tests under address and undefined behaviour sanitizers
	@$(WASMTIME) ASAN_OPTIONS=allow_user_segv_handler=1:detect_stack_use_after_return=0 scripts/run-tests build/asan

tsan: build/tsan/.built ## the lock-free parts' tests under the thread sanitizer
	@$(WASMTIME) scripts/run-tests build/tsan $(LOCK_FREE_TESTS)

fuzz: build/fuzz/.built ## each fuzzer for FUZZ_SECONDS (20); needs clang
	@scripts/run-fuzzers build/fuzz $(FUZZ_SECONDS)

soak: $(VENV)/.installed $(VENV)/.net ## churn and faults for SOAK_SECONDS (600): nothing lost unseen, nothing held
	@PYTHONPATH=tests $(BIN)/python -m soak $(SOAK_SECONDS)

clean: ## remove what was built, the virtual environment too
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .hypothesis

# ---- The virtual environment: one stamp for each thing installed ----

$(VENV)/.created:
	@scripts/require python3-venv python3-dev g++:g++ -- $(PYTHON)
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.requirements: pyproject.toml $(VENV)/.created
	$(BIN)/pip install --quiet cmake ninja "scikit-build-core>=0.11" "nanobind>=2.4"
	$(BIN)/python scripts/dependencies.py | xargs -d '\n' $(BIN)/pip install --quiet
	@touch $@

$(VENV)/.installed: pyproject.toml $(NATIVE) $(VENV)/.requirements
	$(BIN)/pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.net: pyproject.toml $(VENV)/.requirements
	$(BIN)/python scripts/dependencies.py net | xargs -d '\n' $(BIN)/pip install --quiet
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.requirements
	$(BIN)/python scripts/dependencies.py dev | xargs -d '\n' $(BIN)/pip install --quiet
	@touch $@

# ---- The kernel's own programs ----

build/native/.built: CMAKE_OPTIONS := -DEDGEOS_TESTS=ON
build/asan/.built: CMAKE_OPTIONS := -DEDGEOS_TESTS=ON -DEDGEOS_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=RelWithDebInfo
build/tsan/.built: CMAKE_OPTIONS := -DEDGEOS_TESTS=ON -DEDGEOS_SANITIZE=thread -DCMAKE_BUILD_TYPE=RelWithDebInfo
build/fuzz/.built: CMAKE_OPTIONS := -DEDGEOS_FUZZ=ON -DEDGEOS_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++
build/fuzz/.built: build/fuzz/everything.c $(wildcard guest/include/click/* guest/include/click/elements/*)
build/fuzz/.built: $(wildcard native/fuzz/* native/tests/tcp_* guest/include/*.h guest/include/tcp/*)
build/fuzz/.built: $(wildcard appliances/firewall/* appliances/include/*)

build/fuzz/everything.c: native/fuzz/everything.click $(wildcard src/edgeos/click/*.py src/edgeos/click/elements/*.py) \
  $(VENV)/.installed
	@mkdir -p $(@D)
	@$(BIN)/edgeos click build $< --c -o $@ > /dev/null

build/aarch64/.built: CMAKE_OPTIONS := -DEDGEOS_TESTS=ON -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
build/aarch64/.built: | build/aarch64/.tools

build/aarch64/.tools:
	@scripts/require aarch64-linux-gnu-g++:g++-aarch64-linux-gnu qemu-aarch64-static:qemu-user-static
	@mkdir -p $(@D)
	@touch $@

build/aarch64/.wasmtime: pyproject.toml $(VENV)/.requirements
	@mkdir -p $(@D)
	@$(BIN)/python scripts/dependencies.py | grep '^wasmtime==' | xargs $(BIN)/pip install --quiet --no-deps --upgrade \
	  --only-binary=:all: --platform manylinux2014_aarch64 --target $(@D)
	@touch $@

build/native/.built build/asan/.built build/tsan/.built build/aarch64/.built: $(NATIVE_TESTS)
build/native/.built build/asan/.built build/tsan/.built build/aarch64/.built build/fuzz/.built: $(NATIVE) $(VENV)/.requirements
	@$(CMAKE) -S . -B $(@D) $(CMAKE_OPTIONS) > /dev/null
	@$(BIN)/cmake --build $(@D) --parallel $(JOBS)
	@touch $@
