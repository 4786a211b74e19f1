#!/usr/bin/env bash
# Runs clang-tidy (.clang-tidy) over the sources of the release build, tests left out.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/build.sh release >/dev/null
git ls-files '*.cc' | grep -v '^tests/' |
  xargs -P "$(nproc)" -n 4 clang-tidy-19 -p build/release --quiet 2> >(grep -v 'warnings\? generated' >&2)
