#!/bin/sh
# Runs all conformance scripts: run_scripts.sh PKT
exec "$1" "$(dirname "$0")"/scripts/*.pkt
