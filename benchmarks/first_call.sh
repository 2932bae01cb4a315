#!/bin/sh
# Seconds of the first command in a fresh process: kernels compiled from nothing, then read from disk.
set -eu
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
export NUMBA_CACHE_DIR="$cache"
for run in "nothing compiled" "compiled before" "compiled before"; do
  echo "== $run"
  /usr/bin/time -f '%e s wall, %U s user, %M KiB' amortnlme check one_compartment_oral >/dev/null
done
