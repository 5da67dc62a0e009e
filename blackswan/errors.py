"""The one way a program of this repository ends on bad input: a sentence, and exit code 1."""

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TextIO

try:
    import fcntl
except ImportError:  # Windows has none: there nothing waits for a stage that lives on
    fcntl = None  # type: ignore[assignment]

# Python's words, which safetensors repeats, and those of torch.save.
FULL_DISK = (os.strerror(errno.ENOSPC), "PytorchStreamWriter failed writing")
# Torch on a CPU and on a GPU, OpenCV, Arrow and C++; the others raise MemoryError.
NO_MEMORY = (
    os.strerror(errno.ENOMEM),
    "not enough memory",
    "out of memory",
    "Insufficient memory",
    "bad_alloc",
)

# DVC took the last outputs away before it ran the stage.
BRING_BACK = (
    "`dvc checkout` brings back the outputs of the last good run, `git checkout metrics` the small"
    " files in git"
)
SHOWN_CHARACTERS, MESSAGE_CHARACTERS = 200, 1_500
LONG_WORD = re.compile(rf"\S{{{SHOWN_CHARACTERS + 1},}}")
# What stands between :// and the last @ may be a password, what follows a ? a signature.
USERINFO = re.compile(r"(?<=://)\S*@")
QUERY = re.compile(r"[?#][^\s'\")>]*")
SECRET = re.compile(
    r"@|\b(hf_|gh[a-z]_|pypi-)[A-Za-z0-9]{4}|(?i:\b(bearer|basic|digest)\s+\S{6}|\bauthorization\b"
    r"|connection_?string|password\s+\S|\bport\b[^'\"]*['\"]"  # a password with a / is a port
    r"|(key|sig|signature|token|secret|passw\w*|pwd|pass|auth|credentials?|cookie)['\"]*\s*[=:])"
    # base64 with its padding, and long words of small and capital letters and digits
    r"|[\w+/-]{16}={1,2}(?![=\w])|\beyJ\w"
    r"|(?=[\w+=-]*[a-z])(?=[\w+=-]*[A-Z])(?=[\w+=-]*\d)[\w+=-]{30}"
)
# Libraries whose errors quote headers, addresses, configuration or command lines.
TALKATIVE = {
    "httpx", "httpcore", "huggingface_hub", "azure", "msal", "adlfs", "aiohttp", "requests",
    "urllib", "urllib3", "dvc", "dvc_azure", "dvc_objects", "configobj", "subprocess",
}  # fmt: skip


class InputError(Exception):
    """Input that a person can mend; the message names the file or key and the remedy."""

    def __str__(self) -> str:
        """Return one line that can be printed, in which paths and keys are cut too."""
        text = LONG_WORD.sub(lambda word: shown(word[0]), super().__str__())
        return _cut(_printable(text), MESSAGE_CHARACTERS)


def run(main: Callable[[], None]) -> None:
    """Call `main` of a stage, one process at a time; end it as `explained` does.

    When `dvc repro` alone is killed, its stage lives on, and the next run waits for it instead of
    writing beside it.
    """

    def alone() -> None:
        with Path(sys.argv[0]).open() as script:
            if os.environ.get("LOCAL_RANK", "0") == "0":  # accelerate runs a script once per device
                _lock(script)
            main()

    explained(alone)


def explained(main: Callable[[], None]) -> None:
    """Call `main`; end the process with one sentence where the input or the disk is at fault."""
    try:
        main()
    except InputError as error:
        _end(str(error))
    except KeyboardInterrupt:
        below = "\n" if sys.stderr.isatty() else ""  # a bar, or the ^C
        print(f"{below}interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if sentence := _explain(error):
            _end(sentence)
        raise


def _end(sentence: str) -> NoReturn:
    under_dvc = "DVC_STAGE" in os.environ  # set by DVC for the command of a stage
    sys.exit(f"error: {sentence}" + (f"\n{BRING_BACK}" if under_dvc else ""))


def _explain(error: Exception) -> str:
    """Return what a person can do about an error that is none of ours; "" for a bug."""
    text = str(error)
    if any(words in text for words in FULL_DISK):
        return "the disk is full; free some space (`dvc gc -w` drops old data), run again"
    if out_of_memory(error):
        return (
            "the memory is full; close other programs, or lower the sizes of images and batches in "
            "params.yaml, run again"
        )
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"the name {shown(error.filename)} is too long; shorten it"
    if isinstance(error, PermissionError):
        return f"no permission for {shown(error.filename)}; make it readable and writable for you"
    if any(map(_may_leak, _chain(error))):
        return (
            f"{_place(error)}, whose text is left out for it may hold a secret; check the network "
            "and the settings, run again, and report it if it stays"
        )
    return ""


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that the memory is full, of the machine or of a GPU."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)


def _lock(script: TextIO) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(script, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{script.name} still runs from before; waiting for it to end", file=sys.stderr)
        fcntl.flock(script, fcntl.LOCK_EX)


def shown(value: object) -> str:
    """Return a text as it is, anything else as Python writes it: on one line, and cut."""
    return _cut(_printable(value if isinstance(value, str) else repr(value)), SHOWN_CHARACTERS)


def cause(error: BaseException) -> str:
    """Return what an error of another library says, or its type where that may hold a secret."""
    return without_secrets(str(error), type(error).__name__)


def without_secrets(text: str, otherwise: str) -> str:
    """Return `text`, less user and query of its URLs, or `otherwise` where a secret may be left.

    In doubt one is: a key that was printed has to be replaced everywhere, while a text that is
    missing can be had by running the other program alone.
    """
    text = QUERY.sub("", USERINFO.sub("", " ".join(text.split())))
    return otherwise if not text or SECRET.search(text) else shown(text)


def _printable(text: str) -> str:
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def _cut(text: str, length: int) -> str:
    """Leave out the middle: the key stands at the beginning, the remedy at the end."""
    half = (length - 3) // 2
    return text if len(text) <= length else f"{text[:half]}...{text[-half:]}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield every error whose text a traceback would print."""
    waiting, seen = [error], set()
    while waiting:
        error = waiting.pop()
        if id(error) not in seen:
            seen.add(id(error))
            yield error
            others = (error.__cause__, error.__context__, *getattr(error, "exceptions", ()))
            waiting += [other for other in others if other is not None]


def _may_leak(error: BaseException) -> bool:
    if isinstance(error, InputError):
        return False  # ours, caught, and the context of what came after
    text = " ".join([str(error), *getattr(error, "__notes__", ())])
    return type(error).__module__.split(".")[0] in TALKATIVE or bool(SECRET.search(text))


def _place(error: BaseException) -> str:
    """Name the type of `error` and the last line outside of other packages that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{type(error).__name__} at {own[-1].filename}:{own[-1].lineno}"
