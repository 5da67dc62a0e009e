"""What a model is asked of one image, and what of an answer counts.

The prompt is a file; its name and the beginning of its sha256 are its version.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blackswan.data.corrections import corrected
from blackswan.data.known import sha256_of
from blackswan.data.records import read_index
from blackswan.errors import InputError, shown

PROMPT = Path(__file__).parent / "prompts" / "v1.txt"
PICTURES = ("crop", "image", "heatmap")
NONE, NEW = "none", "new"  # what a defect is called that is not there, or of no known type
MESSAGE_TOKENS = 200  # around the texts of a request: roles, and how a schema is wrapped


@dataclass(frozen=True)
class Prompt:
    """The instructions."""

    text: str
    version: str


@dataclass(frozen=True)
class Question:
    """What is asked of every image."""

    model: str
    prompt: Prompt
    defects: list[str]  # the known types
    max_tokens: int  # of an answer

    def __post_init__(self) -> None:
        """Raise InputError where a type has a name that means something else, or none."""
        for name in self.defects:
            if name in (NONE, NEW) or not name.strip() or self.defects.count(name) > 1:
                raise InputError(
                    f"{shown(repr(name))} cannot be a type of defect; give each another name, once"
                )


@dataclass(frozen=True)
class Reply:
    """What came back of one request."""

    content: str  # "" where the model abstained
    why: str  # it abstained; "" where it did not
    tokens_in: int | None  # None where the endpoint does not say
    tokens_out: int | None


class Answer(BaseModel):
    """What the schema asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    label: Literal["normal", "anomalous"]
    defect: str
    reason: str
    confidence: float = Field(ge=0, le=1)


def read_prompt(path: Path = PROMPT) -> Prompt:
    """Read a prompt; raises InputError where the file is missing, empty or no text."""
    try:
        content = path.read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} is no text file in UTF-8; name another with --prompt") from None
    if not text.strip():
        raise InputError(f"{path} is empty; write the instructions into it")
    return Prompt(text, f"{path.stem}-{sha256_of(content)[:12]}")


def known_defects(frames: Path, corrections: Path) -> list[str]:
    """Return the types of defect that the frames have, or corrections give them."""
    index = frames / "index.csv"
    found = corrected(read_index(index), corrections) if index.exists() else []
    return sorted({frame.defect for frame in found if frame.label == "anomalous" and frame.defect})


def build(question: Question, urls: Mapping[str, str]) -> dict[str, Any]:
    """Return the body of the request for /v1/chat/completions, with the URL of each picture."""
    known = ", ".join(question.defects) or "none is known yet"
    parts: list[dict[str, Any]] = [{"type": "text", "text": f"Known types of defect: {known}."}]
    for name, url in urls.items():
        parts.append({"type": "text", "text": f"{name}:"})
        parts.append({"type": "image_url", "image_url": {"url": url, "detail": "high"}})
    schema = _schema(question.defects)
    return {
        "model": question.model,
        "max_completion_tokens": question.max_tokens,
        "messages": [
            {"role": "system", "content": question.prompt.text},
            {"role": "user", "content": parts},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "proposal", "strict": True, "schema": schema},
        },
    }


def data_uris(pictures: Mapping[str, bytes]) -> dict[str, str]:
    """Return PNG files as URLs that hold them."""
    return {
        name: f"data:image/png;base64,{base64.b64encode(content).decode()}"
        for name, content in pictures.items()
    }


def most_tokens_in(question: Question, tokens_per_image: int) -> int:
    """Return how many tokens a request has at most: a token of text is at least one byte.

    What a picture takes depends on the model, `tokens_per_image` says how much at most.
    """
    request = build(question, dict.fromkeys(PICTURES, ""))
    return len(json.dumps(request).encode()) + MESSAGE_TOKENS + len(PICTURES) * tokens_per_image


def read_answer(content: str, defects: Sequence[str]) -> Answer | None:
    """Return what a model answered, None where it is off the schema."""
    try:
        answer = Answer.model_validate_json(content)
    except ValidationError:
        return None
    allowed = [NONE] if answer.label == "normal" else [*defects, NEW]
    if answer.defect not in allowed or not answer.reason.strip():
        return None
    return answer.model_copy(update={"reason": _harmless(answer.reason)})


def _harmless(text: str) -> str:
    """Return a text for a cell of a table, in which a spreadsheet finds no formula."""
    text = shown(" ".join(text.split()))
    return f"'{text}" if text[0] in "=+-@" else text


def _schema(defects: Sequence[str]) -> dict[str, Any]:
    properties = {
        "label": {"type": "string", "enum": ["normal", "anomalous"]},
        "defect": {"type": "string", "enum": [NONE, *defects, NEW]},
        "reason": {"type": "string"},
        "confidence": {"type": "number"},
    }
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }
