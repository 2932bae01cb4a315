#!/bin/sh
# Build the estimator: run.sh OUT, from the top of a checkout; goes on where an interrupted run stopped.
set -eu
out=${1:?usage: run.sh OUT}
here=$(dirname "$0")
# JAX trains this network about twice as fast on a CPU; the artefact loads on TensorFlow as well.
export KERAS_BACKEND=jax XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
mkdir -p "$out"
name=mrna_transfection_sde
amortnlme simulate $name --n 400000 --seed 2024 --out "$out/$name.training"
# The model has no likelihood: what members from different seeds disagree on is what is known of the network's error.
for seed in 1 2 3; do
  amortnlme train "$out/$name.training" --spec "$here/spec.toml" --seed $seed --out "$out/$name.seed$seed"
done
amortnlme ensemble "$out/$name.seed1" "$out/$name.seed2" "$out/$name.seed3" --out "$out/$name"
amortnlme calibrate "$out/$name" --n 2000 --seed 77
