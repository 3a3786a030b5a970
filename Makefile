# Entry points; meson.build describes the build itself.
#   make          everything; the command is build/roux
#   make run      installs what is missing, builds, boots a micro-VM, runs a command in it
#   make test     all tests that fit in CI          make fuzz   fuzz targets, long
#   make stress   hours of a mixed load in guests, resumable
#   make test-kernel  builds a guest kernel and tests on it, minutes
#   make nightly  differential tests, fuzz targets and stress at length
#   make bench    every table of SPECIFICATION.md   make deps   Debian packages only
#   make packetdrill         the scripts of tests/net with PACKETDRILL, which we do not install
#   make packetdrill-kernel  the same against Linux, as root
#   make install  under /usr/local, or DESTDIR      make clean  every build folder
SHELL := /bin/bash
OUT ?= out
FUZZ_MINUTES ?= 10
STRESS_HOURS ?= 24
STRESS_JOBS ?= 1
NIGHTLY_HOURS ?= 2
PACKETDRILL ?= packetdrill
.PHONY: all run test test-kernel bench fuzz stress nightly packetdrill packetdrill-kernel deps install clean

all: deps
	@[ -f $(OUT)/build.ninja ] || meson setup $(OUT) >/dev/null
	@ninja -C $(OUT) --quiet
	@ln -sf ../$(OUT)/cli/roux build/roux

deps:
	@tools/install-deps.sh

run: all
	@tools/first-run.sh build/roux

test: all
	@tools/run-tests.sh $(OUT)

test-kernel: all
	@tools/test-kernel.sh $(OUT)

bench: all
	@bench/run.sh $(OUT)

fuzz: deps
	@tools/run-fuzz.sh $(FUZZ_MINUTES)

stress: all
	@tests/stress/long.py --hours $(STRESS_HOURS) --jobs $(STRESS_JOBS) build/roux $(OUT)/tests/stress/stress $(OUT)/stress

nightly: all
	@tools/run-nightly.sh $(OUT) $(FUZZ_MINUTES) $(NIGHTLY_HOURS)

packetdrill: all
	@tests/net/run_packetdrill.py $(PACKETDRILL) $(OUT)/tests/net/libroux-packetdrill.so

packetdrill-kernel:
	@tests/net/run_packetdrill.py --kernel $(PACKETDRILL) -

install: all
	@meson install -C $(OUT) --no-rebuild --quiet

clean:
	rm -rf $(OUT) out-* build/roux
