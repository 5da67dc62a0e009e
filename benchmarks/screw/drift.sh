#!/usr/bin/env bash
# `make drift` of the default detectors on MVTec AD screw at 256 pixels; tables, pictures are kept
# In a fresh clone with a .venv, for it leaves the run in the workspace:
#     benchmarks/screw/drift.sh ../shared/data/mvtec/screw
set -euo pipefail
source "$(dirname "$0")/settings.sh"

dvc exp run --name drift "${settings[@]}" drift/dvc.yaml

mkdir -p benchmarks/screw/drift
cp metrics/drift/*.csv metrics/drift/*.png benchmarks/screw/drift/
measured screw/drift/patchcore.csv
