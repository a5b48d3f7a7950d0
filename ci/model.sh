#!/usr/bin/env bash
# Runs three million steps of random programs for a C host, against a model of the results.
# MODEL_SEED repeats a run, and MODEL_STEPS sets the number of steps.
set -euo pipefail
cd "$(dirname "$0")/.."
export MODEL_SEED="${MODEL_SEED:-$(date +%s)000000}" MODEL_STEPS="${MODEL_STEPS:-3000000}"
echo "MODEL_SEED=$MODEL_SEED MODEL_STEPS=$MODEL_STEPS"
cargo test --release -p hosts --test model -- --nocapture
