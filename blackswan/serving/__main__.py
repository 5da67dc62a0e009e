"""`python -m blackswan.serving FOLDER`: the service where there is no `blackswan serve`.

That command takes more options, and packages that a serving install of an exported detector lacks.
"""

import argparse

from blackswan.errors import explained
from blackswan.serving.detectors import open_source
from blackswan.serving.limits import Limits
from blackswan.serving.server import serve

WATCH_SECONDS = 5  # between looks for a new detector in the folder


def main() -> None:
    """Serve what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m blackswan.serving", description=__doc__)
    parser.add_argument("detector", help="folder that `blackswan export` wrote")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    chosen = parser.parse_args()
    source = open_source(chosen.detector)
    explained(lambda: serve(source, chosen.host, chosen.port, Limits(), WATCH_SECONDS))


if __name__ == "__main__":
    main()
