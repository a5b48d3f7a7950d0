#!/usr/bin/env bash
# Three million steps of random programs for a C host, against the model of what must happen. MODEL_SEED repeats a run; more steps with MODEL_STEPS.
set -euo pipefail
cd "$(dirname "$0")/.."
export MODEL_SEED="${MODEL_SEED:-$(date +%s)000000}" MODEL_STEPS="${MODEL_STEPS:-3000000}"
echo "MODEL_SEED=$MODEL_SEED MODEL_STEPS=$MODEL_STEPS"
cargo test --release -p hosts --test model -- --nocapture
