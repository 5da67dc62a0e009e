#!/usr/bin/env bash
# efficient_ad and its teacher on MVTec AD screw at 256 pixels, by `dvc exp run`; its losses are
# kept. A line of efficient_ad_steps.csv is metrics/leaderboard.csv after a run with such steps.
# In a fresh clone with a .venv, for it leaves the run in the workspace:
#     benchmarks/screw/efficient_ad.sh ../shared/data/mvtec/screw
set -euo pipefail
source "$(dirname "$0")/settings.sh"

teacher='{seed: 0, images: data/dataset/train, photos: 100, backbone: efficientnet_lite0, layers: [2, 4],
    size: S, image_size: 128, batch_size: 8, steps: 800, learning_rate: 0.001, weight_decay: 0.00001}'
student='{backbone: pdn_small, image_size: 256, crop_size: 128, steps: 3000, learning_rate: 0.0001,
    weight_decay: 0.00001}'

dvc exp run --name efficient_ad "${settings[@]}" \
    -S "+distill_teacher.pdn_small=${teacher//$'\n'/}" \
    -S "+detectors.efficient_ad=${student//$'\n'/}"

cp data/weights/pdn_small/losses.csv benchmarks/screw/teacher_losses.csv
cp data/models/efficient_ad/losses.csv benchmarks/screw/efficient_ad_losses.csv
