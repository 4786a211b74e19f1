#!/usr/bin/env bash
# Installs the Debian 12 packages that building and running Hatchery needs, if any is missing.
set -euo pipefail

packages=(
  # build
  clang-19 libclang-rt-19-dev clang-format-19 clang-tidy-19 mold ccache cmake ninja-build pkg-config git
  # libraries
  libboost1.81-dev libcli11-dev libgmock-dev libgrpc++-dev libgtest-dev libprotobuf-dev librocksdb-dev
  libspdlog-dev libssl-dev libtoml11-dev libvalijson-dev nlohmann-json3-dev protobuf-compiler protobuf-compiler-grpc
  # run and test
  chromium jq kmod openssl procps python3-grpcio qemu-system-x86 util-linux
)

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "install-packages: not root, and these packages are missing: ${missing[*]}" >&2
  exit 1
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$log" 2>&1; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Lists may be missing on a fresh machine or out of date on an old one.
if ! install; then
  apt-get update -qq >>"$log" 2>&1 || { cat "$log" >&2; exit 1; }
  install || { cat "$log" >&2; exit 1; }
fi
