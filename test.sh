#!/usr/bin/env bash
# Installs what is needed, builds, and runs every test: units, then end to end on a real QEMU. Ends
# with CTest's summary. Arguments go to CTest: ./test.sh -L unit, ./test.sh -R Acquire.
set -euo pipefail
cd "$(dirname "$0")"
scripts/install-packages.sh
scripts/build.sh release
exec ctest --preset release --parallel "$(nproc)" "$@"
