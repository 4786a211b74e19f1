#!/usr/bin/env bash
# Runs the fuzz targets of tests/fuzz, as many at once as there are CPUs, each for so many seconds.
#   scripts/fuzz.sh [SECONDS] [TARGET…]     10 seconds, all targets
# They start from tests/fuzz/corpus and keep what leads further in build/fuzz/corpus, for the next run.
# An input that fails is left as build/fuzz/TARGET-crash-…
set -euo pipefail
cd "$(dirname "$0")/.."
export seconds=${1:-10}
shift || true
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || mapfile -t targets < <(ls tests/fuzz/corpus)
scripts/build.sh fuzz "${targets[@]/#/fuzz_}"

export UBSAN_OPTIONS=print_stacktrace=1
run() {
  local target=$1 log=build/fuzz/$1.log
  mkdir -p "build/fuzz/corpus/$target"
  if "build/fuzz/bin/fuzz_$target" -max_total_time="$seconds" -timeout=25 -artifact_prefix="build/fuzz/$target-" \
    "build/fuzz/corpus/$target" "tests/fuzz/corpus/$target" >"$log" 2>&1; then
    echo "fuzz: $target: $(grep -E '^Done' "$log")"
  else
    tail -n 60 "$log" >&2
    echo "fuzz: $target failed; all it said is in $log" >&2
    return 1
  fi
}
export -f run
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'run {}'
