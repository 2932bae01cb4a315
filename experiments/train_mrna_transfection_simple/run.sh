#!/bin/sh
# Rebuild the shipped estimator: run.sh OUT, from the top of a checkout; goes on where an interrupted run stopped.
set -eu
out=${1:?usage: run.sh OUT}
here=$(dirname "$0")
# JAX trains this network about twice as fast on a CPU; the artefact loads on TensorFlow as well.
export KERAS_BACKEND=jax XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
mkdir -p "$out"
name=mrna_transfection_simple
amortnlme simulate $name --n 300000 --seed 2024 --out "$out/$name.training"
amortnlme train "$out/$name.training" --spec "$here/spec.toml" --seed 1 --out "$out/$name"
amortnlme calibrate "$out/$name" --n 2000 --seed 77
python "$here/../exact_posteriors/score.py" "$out/$name" --exact "$out/$name.exact" --store
