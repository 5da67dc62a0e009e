# What run.sh and seeds.sh share: MVTec AD screw, at the path in $1, at 256 pixels.
settings=(
    -S "source.path=$(realpath "$1")"
    -S extract_frames.size=256
    -S build_dataset.image_size=256
    -S detectors.padim.image_size=256
    -S detectors.patchcore.image_size=256
    -S detectors.dino_memory.image_size=252
    -S detectors.dino_memory.rotations=8
)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH="$PWD/.venv/bin:$PATH"
