"""The one way a program of this repository ends on bad input: a sentence, and exit code 1."""

import errno
import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

# Python's words, which safetensors repeats, and those of torch.save.
FULL_DISK = (os.strerror(errno.ENOSPC), "PytorchStreamWriter failed writing")


# DVC took the last outputs away before it ran the stage.
BRING_BACK = (
    "`dvc checkout` brings back the outputs of the last good run, `git checkout metrics` the small"
    " files in git"
)


class InputError(Exception):
    """Input that a person can mend; the message names the file or key and the remedy."""


def run(main: Callable[[], None]) -> None:
    """Call `main`; end the process with one sentence where the input or the disk is at fault.

    One script at a time: when `dvc repro` alone is killed, its stage lives on, and the next run
    waits for it instead of writing beside it.
    """
    try:
        with Path(sys.argv[0]).open() as script:
            if os.environ.get("LOCAL_RANK", "0") == "0":  # accelerate runs a script once per device
                _lock(script)
            main()
    except InputError as error:
        under_dvc = "DVC_STAGE" in os.environ  # set by DVC for the command of a stage
        sys.exit(f"error: {error}" + (f"\n{BRING_BACK}" if under_dvc else ""))
    except Exception as error:
        if any(words in str(error) for words in FULL_DISK):
            sys.exit(
                "error: the disk is full; free some space (`dvc gc -w` drops old data), run again"
            )
        if isinstance(error, PermissionError):
            sys.exit(
                f"error: no permission for {error.filename}; make it readable and writable for you"
            )
        raise


def _lock(script: TextIO) -> None:
    try:
        fcntl.flock(script, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{script.name} still runs from before; waiting for it to end", file=sys.stderr)
        fcntl.flock(script, fcntl.LOCK_EX)
