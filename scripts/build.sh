#!/usr/bin/env bash
# Builds one preset (debug, release, asan, tsan) in build/PRESET; quick when nothing has changed.
#   scripts/build.sh PRESET [TARGET…]
set -euo pipefail
cd "$(dirname "$0")/.."
# One compiler cache for all clones of the project, wherever they are.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
preset=${1:?usage: scripts/build.sh PRESET [TARGET…]}
shift
if [ ! -f "build/$preset/build.ninja" ]; then
  cmake --preset "$preset" --log-level=WARNING
fi
targets=()
for target in "$@"; do targets+=(--target "$target"); done
cmake --build "build/$preset" "${targets[@]}"
