#!/usr/bin/env bash
# From a bare Debian 12 to a warm VM that ran a command: installs packages, builds, builds the guest
# image, starts a daemon in a private state directory, makes a template, fills a pool, acquires a VM
# with one more vCPU and 256 MiB more, runs a command in it, releases it and stops. Prints what each
# step took. Exit code 0 only if every step really happened; nothing is left running in any case.
set -euo pipefail
cd "$(dirname "$0")"

state=""
daemon=""
steps=()
seconds=()

cleanup() {
  if [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; then
    kill -TERM "$daemon" 2>/dev/null || true
    timeout 60 tail --pid="$daemon" -f /dev/null || kill -KILL "$daemon" 2>/dev/null || true
  fi
  [ -z "$state" ] || rm -rf "$state"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() {
  echo "quickstart: $*" >&2
  if [ -n "$state" ] && [ -f "$state/daemon.log" ]; then
    echo "--- end of the daemon's log:" >&2
    tail -n 20 "$state/daemon.log" >&2
  fi
  exit 1
}

# step NAME COMMAND…: runs it and notes what it took.
step() {
  local name=$1 start end
  shift
  echo "==> $name"
  start=$(date +%s%N)
  "$@" || fail "$name failed"
  end=$(date +%s%N)
  steps+=("$name")
  seconds+=("$(((end - start) / 1000000))")
}

start_daemon() {
  hatcheryd --state-dir "$state" --guest-image-dir "$PWD/build/guest" >"$state/daemon.log" 2>&1 &
  daemon=$!
  # The daemon says so when it serves.
  timeout 30 grep -q -m1 "ready on" <(tail -n +1 --pid="$daemon" -F "$state/daemon.log" 2>/dev/null) ||
    return 1
}

acquire() {
  vm=$(hatchery vm acquire --vcpus 2 --memory 512M --sandbox-id quickstart --json) || return 1
  vm_id=$(jq -r .vm_id <<<"$vm")
  [ -n "$vm_id" ] && [ "$vm_id" != null ]
}

run_command() {
  local said
  said=$(hatchery vm exec "$vm_id" -- /bin/sh -c \
    'echo "$(nproc) vCPUs, $(awk "/MemTotal/{print int(\$2/1024)}" /proc/meminfo) MiB, $(hostname), Linux $(uname -r)"') ||
    return 1
  echo "    the guest says: $said"
  case $said in "2 vCPUs, "*" $vm_id, "*) ;; *) echo "    that is not what was asked for" >&2; return 1 ;; esac
}

release() {
  hatchery vm release "$vm_id" || return 1
  # Really gone: its VMM's process, too.
  ! kill -0 "$(jq -r .pid <<<"$vm")" 2>/dev/null
}

stop_daemon() {
  kill -TERM "$daemon" || return 1
  wait "$daemon" || return 1
  daemon=""
  ! pgrep -f "$state/vms/" >/dev/null
}

step "install packages" scripts/install-packages.sh
step "build" scripts/build.sh release
export PATH="$PWD/build/release/bin:$PATH"
step "build the guest image" hatchery image build -o build/guest

state=$(mktemp -d /tmp/hatchery-quickstart.XXXXXX)
export HATCHERY_ENDPOINT="unix://$state/hatchery.sock"
step "start the daemon" start_daemon
step "template and a pool of 4" hatchery factory init --pool 4
step "acquire: 2 vCPUs, 512 MiB" acquire
step "run a command in the VM" run_command
step "release the VM" release
step "stop the daemon" stop_daemon
step "measure latency" hatchery bench cold-start --image build/guest --samples 10 --cold-boots 3 \
  --burst 10 --quiet --json "$state/latency.json" >/dev/null
step "measure memory" hatchery bench density --image build/guest --max-vms 50 --step 50 \
  --cold-boots 1 --quiet --json "$state/memory.json" >/dev/null

echo
echo "What each step took, as whole commands:"
for i in "${!steps[@]}"; do printf '  %-28s %8d ms\n' "${steps[$i]}" "${seconds[$i]}"; done
echo
hatchery bench show "$state/latency.json"
hatchery bench show "$state/memory.json"
