#!/bin/sh
# Rebuild the shipped estimator: run.sh OUT, from the top of a checkout; goes on where an interrupted run stopped.
set -eu
out=${1:?usage: run.sh OUT}
here=$(dirname "$0")
# JAX trains this network about twice as fast on a CPU; the artefact loads on TensorFlow as well.
export KERAS_BACKEND=jax XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
mkdir -p "$out"
amortnlme simulate one_compartment_oral --n 1000000 --seed 2024 --out "$out/one_compartment_oral.training"
amortnlme train "$out/one_compartment_oral.training" --spec "$here/spec.toml" --seed 1 --out "$out/one_compartment_oral"
amortnlme calibrate "$out/one_compartment_oral" --n 2000 --seed 77
python "$here/score.py" "$out/one_compartment_oral"
