#!/usr/bin/env bash
# The table of all detectors that fit in minutes on MVTec AD screw at 320 pixels, by `dvc exp run`:
# the defaults, dino_memory with all references at 448, and gaussian_patches and simplenet as
# docs/detectors.md has them. In a fresh clone with a .venv, for it leaves the run in the workspace:
#     benchmarks/screw/run.sh ../shared/data/mvtec/screw
set -euo pipefail
source "$(dirname "$0")/settings.sh"

patches='backbone: efficientnet_lite0, layers: [2, 4], image_size: 320, tiles: 1, neighborhood: 3,
    top_fraction: 0.01, smoothing: 0.018'
gaussians="{$patches, components: 64, regularization: 0.01}"
simplenet="{$patches, hidden_layers: 2, hidden: 128, noise: 0.5, steps: 1000, learning_rate: 0.002,
    weight_decay: 0.00001}"

dvc exp run --name screw -S "source.path=$source" \
    -S extract_frames.size=320 -S build_dataset.image_size=320 \
    -S detectors.dino_memory.references=null -S detectors.dino_memory.bank_patches=10000 \
    -S detectors.dino_memory.image_size=448 -S detectors.dino_memory.top_fraction=0.001 \
    -S "+detectors.gaussian_patches=${gaussians//$'\n'/}" \
    -S "+detectors.simplenet=${simplenet//$'\n'/}"

cp metrics/summary.json metrics/leaderboard.csv benchmarks/screw/
measured screw/leaderboard.csv
