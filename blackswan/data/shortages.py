"""What numbers of images cannot support: a rule returns a Shortage, or None where there are enough.

Each rule stands once, beside what it is a rule of. A fit or an evaluation refuses by it, and the
stage label asks all of them before anything is trained (blackswan/evaluation/support.py).
"""

from dataclasses import dataclass

from blackswan.errors import InputError

FEWEST = 2  # normal images, of which a detector learns how they vary


@dataclass(frozen=True)
class Shortage:
    """Too few images for a setting."""

    problem: str  # half a sentence: what asks for how many, and how many there are
    setting: str = ""  # key=value that works with these images; "": only more images help

    def __str__(self) -> str:
        """Return the sentence with its remedy."""
        remedy = f"set {self.setting} or add" if self.setting else "add"
        return f"{self.problem}; {remedy} normal images"


def refuse(shortage: Shortage | None) -> None:
    """Raise InputError where there is a shortage."""
    if shortage:
        raise InputError(str(shortage))


def too_few(name: str, images: int) -> Shortage | None:
    """Tell where a detector has fewer than two normal images."""
    if images >= FEWEST:
        return None
    return Shortage(
        f"{name} needs at least {FEWEST} normal images to learn from, there is {images}"
    )
