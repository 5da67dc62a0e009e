#!/usr/bin/env bash
# The default detectors on MVTec AD screw at 256 pixels over five seeds, as a queue of experiments.
# In a fresh clone with a .venv, for it commits the first run there; half an hour on two cores:
#     benchmarks/screw/seeds.sh ../shared/data/mvtec/screw
set -euo pipefail
source=$(realpath "$1")
cd "$(dirname "$0")/../.."
export PATH="$PWD/.venv/bin:$PATH"

dvc exp run \
    -S "source.path=$source" \
    -S extract_frames.size=256 \
    -S build_dataset.image_size=256 \
    -S detectors.padim.image_size=256 \
    -S detectors.patchcore.image_size=256 \
    -S detectors.dino_memory.image_size=252 \
    -S detectors.dino_memory.rotations=8
git commit --all --message "Screw"    # the others start from here: only what a seed touches runs
dvc exp run --queue -S 'fit_detector.seed=1,2,3,4'
dvc exp run --run-all
dvc exp show --json | python tools/leaderboard.py > benchmarks/screw/seeds.md
