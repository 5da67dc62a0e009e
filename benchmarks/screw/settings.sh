# What the scripts here share: MVTec AD screw, at the path in $1, and the settings at 256 pixels.
source="$(realpath "$1")"
settings=(
    -S "source.path=$source"
    -S extract_frames.size=256
    -S build_dataset.image_size=256
    -S detectors.padim.image_size=256
    -S detectors.patchcore.image_size=256
    -S detectors.dino_memory.image_size=252
    -S detectors.dino_memory.rotations=8
)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH="$PWD/.venv/bin:$PATH"

# Enter a result as measured by the present code, whose params are those before the run.
measured() {
    git checkout --quiet HEAD params.yaml
    python benchmarks/measured.py "$1"
}
