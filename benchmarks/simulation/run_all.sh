#!/bin/sh
# Every benchmark of this folder, one after the other; about a quarter of an hour on a quiet core.
set -eu
cd "$(dirname "$0")"
for script in mrna_ode sunitinib_ode mrna_sde sensitivities shards scaling first_call all_models; do
  echo "== $script"
  python "$script.py"
done
