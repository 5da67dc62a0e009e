#!/usr/bin/env bash
# The default detectors on MVTec AD screw at 256 pixels over five seeds, as a queue of experiments.
# In a fresh clone with a .venv, for it commits the first run there:
#     benchmarks/screw/seeds.sh ../shared/data/mvtec/screw
set -euo pipefail
source "$(dirname "$0")/settings.sh"

dvc exp run "${settings[@]}"
git commit --all --message "Screw"    # the others start from here: only what a seed touches runs
dvc exp run --queue -S 'fit_detector.seed=1,2,3,4'
dvc exp run --run-all
dvc exp show --json | python tools/leaderboard.py > benchmarks/screw/seeds.md
python benchmarks/measured.py screw/seeds.md
