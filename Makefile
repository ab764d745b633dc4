# The front door: each target first installs missing packages (setup.sh), configures where needed, and builds with all cores.
# CMake does the work; `cmake --preset release` and friends (CMakePresets.json) go around this file.
LIGHTCONE_ARCH ?= native
PREFIX ?= /usr/local
SETUP ?= ./setup.sh
CLANG_FORMAT ?= clang-format-14
sources = find $(wildcard engine data kernels autograd models experiments tests bench) -type f \
	\( -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) -print0

.DEFAULT_GOAL := build
.NOTPARALLEL:
.PHONY: help build demo test sanitize fuzz bench format format-check install clean all configure setup fuzz-setup

help:          ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /make \1 \t/p' Makefile | expand -t 20
	@echo 'LIGHTCONE_ARCH=x86-64-v3 after any of them builds a binary to carry to other machines (default: native, this one).'

build: configure  ## build/lightcone (the default)
	@ninja -C build lightcone

demo: build    ## train a tagger on the jets that come with the program, in about a minute
	build/lightcone run -cn demo

test: all format-check fuzz-setup  ## build everything, check the formatting, run all tests
	@OMP_WAIT_POLICY=passive ctest --test-dir build --output-on-failure -j $$(nproc)

sanitize: setup  ## the readers and the kernels under the sanitizers of addresses, undefined behaviour and threads
	@for preset in sanitize tsan; do \
	  test -f build-$$preset/build.ninja || cmake --preset $$preset || exit; \
	  ninja -C build-$$preset lightcone_quick_tests || exit; \
	done
	LIGHTCONE_CASE=1-1000 build-sanitize/lightcone_quick_tests
	OMP_THREAD_LIMIT=1 build-tsan/lightcone_quick_tests

RUNS ?= 1000000
fuzz: fuzz-setup  ## the fuzzers of the file readers, RUNS=1000000 inputs each (tests/fuzz/README.md)
	@tests/fuzz/run.sh $(RUNS)

bench: configure  ## build and run the benches; JSON in bench/results/
	@ninja -C build lightcone_bench
	@mkdir -p bench/results
	build/lightcone_bench --json bench/results/$$(date +%Y-%m-%d)-$$(git describe --always --dirty).json

format: setup  ## format all C++
	@$(sources) | xargs -0 $(CLANG_FORMAT) -i

format-check: setup  ## fail where `make format` would change something
	@$(sources) | xargs -0 $(CLANG_FORMAT) --dry-run -Werror

install: build  ## install to PREFIX (/usr/local): binary, configs, data
	@cmake --install build --prefix '$(PREFIX)'

clean:         ## remove what was built
	rm -rf build build-debug build-sanitize build-tsan build-fuzz build-portable build-cuda

all: configure
	@ninja -C build

# ninja itself configures again when a CMake file changes; here only the first time, and when LIGHTCONE_ARCH does.
configure: setup
	@test ! -d build || test -w build || { echo "make: build/ cannot be written to. What is built runs from any folder \
	that is yours: cd there and call '$(CURDIR)/build/lightcone' run -cn demo"; exit 1; }
	@test -f build/build.ninja && grep -qx 'LIGHTCONE_ARCH:[A-Z]*=$(LIGHTCONE_ARCH)' build/CMakeCache.txt \
	  || cmake -G Ninja -B build -DLIGHTCONE_ARCH=$(LIGHTCONE_ARCH)

setup:
	@$(SETUP)

# Without them the fuzzers are left out, and ctest says so.
fuzz-setup: setup
	@$(SETUP) --fuzz || echo 'make: going on without the fuzzers'
