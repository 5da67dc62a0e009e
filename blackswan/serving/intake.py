"""What a request brings: images as files, as base64 or by path, and what is asked of them."""

import asyncio
import errno
import io
import json
import os
import stat
import sys
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from blackswan.errors import InputError, cause, shown
from blackswan.params import Section
from blackswan.serving.answers import Asked, Picture, ScoreRequest
from blackswan.serving.limits import Limits
from blackswan.serving.problems import Refused
from blackswan.serving.scorer import Upload
from blackswan.tracking.contract import Params, allowed, checked, from_base64, sources

if TYPE_CHECKING:
    import pandas as pd

AnyModel = TypeVar("AnyModel", bound=BaseModel)
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")  # of MLflow
FIELDS = 16  # of a form, beside its files


class Named(Section):
    """An image by its path."""

    image: str


class DominoRequest(Section):
    """What the Domino Model API sends."""

    data: Named


class _InMemory(MultiPartParser):
    spool_max_size = sys.maxsize  # a body is bounded, and in memory already


def read_form(
    headers: Headers, body: bytes, limits: Limits
) -> tuple[list[tuple[Upload, str]], Asked]:
    """Return the files of a form with their names, and what its fields ask."""
    uploads, fields = read_files(headers, body, limits)
    return uploads, checked(fields, Asked)


def read_files(
    headers: Headers, body: bytes, limits: Limits
) -> tuple[list[tuple[Upload, str]], dict[str, str]]:
    """Return the files of a form with their names, and its fields."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemory(headers, stream(), max_files=limits.files, max_fields=FIELDS)
    try:
        form = asyncio.run(parser.parse())  # in memory, so it waits for nothing
    except MultiPartException as error:
        if parser._current_files > limits.files:
            raise Refused(
                413, f"the request has more than {limits.files} images; send fewer at a time"
            ) from None
        raise InputError(
            f"the form cannot be read ({cause(error)}); send multipart/form-data with files"
        ) from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if not files:
        raise InputError("the form has no file; add one or more, such as `-F images=@photo.jpg`")
    fields = {key: value for key, value in form.items() if isinstance(value, str)}
    uploads = []
    for number, file in enumerate(files):
        name = shown(file.filename or f"image {number}")
        uploads.append((Upload(partial(io.BytesIO, file.file.read()), name), name))
    return uploads, fields


def read_json(body: bytes) -> tuple[list[tuple[Upload, str]], Asked]:
    """Return the images of a JSON request with their names, and what is asked."""
    found = parsed(ScoreRequest, body)
    return read_pictures(found.images), checked(found.model_dump(exclude={"images"}), Asked)


def read_pictures(pictures: Sequence[Picture]) -> list[tuple[Upload, str]]:
    """Return the images of a JSON request with their names."""
    uploads = []
    for number, picture in enumerate(pictures):
        name = shown(picture.name or f"image {number}")
        uploads.append((Upload(partial(from_base64, picture.image, name), name), name))
    return uploads


def read_rows(body: bytes, most: int) -> tuple[list[Upload], Params]:
    """Return the images of a request of MLflow, whose files have `most` bytes, and its params."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise InputError("the request is not JSON; send one of MLflow's forms") from None
    given = [form for form in FORMS if isinstance(content, dict) and form in content]
    if len(given) != 1 or content.keys() - {given[0], "params"}:
        raise InputError(
            f"the request holds not exactly one of {', '.join(FORMS)}, and params where wanted; "
            'send {"dataframe_records": [{"image": "<base64 of a file>"}]}'
        )
    params = content.get("params") or {}
    if not isinstance(params, dict):
        raise InputError('params are no object; send such as {"heatmap": true}')
    uploads = [
        Upload(partial(_read, source, name, most), name)
        for source, name in sources(_table(given[0], content[given[0]]))
    ]
    return uploads, checked(params, Params)


def _read(source: io.BytesIO | Path, name: str, most: int) -> io.BytesIO:
    return read_file(source, name, most) if isinstance(source, Path) else source


def read_domino(body: bytes, most: int) -> Upload:
    """Return the image that a request of Domino names, below the folder that it may name."""
    path = parsed(DominoRequest, body).data.image
    file = allowed(path, "data.image")
    name = shown(path)
    return Upload(partial(read_file, file, name, most), name)


def parsed(kind: type[AnyModel], body: bytes) -> AnyModel:
    """Read JSON as a `kind`; raises InputError, which names the first key that is wrong."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as invalid:
        error = invalid.errors(include_url=False, include_input=False)[0]
        name = shown(".".join(map(str, error["loc"])) or "the request")
        raise InputError(f"{name}: {shown(error['msg'])}; see /openapi.json for the form") from None


def read_file(path: Path, name: str, most: int) -> io.BytesIO:
    """Return the bytes of a file; raises InputError where it is none, or a large one."""
    # A link that was put there since the path was resolved is not followed, a pipe not waited for.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags)
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise InputError(f"{name} is no file; name an image")
            if state.st_size > most:
                raise InputError(f"{name} has more than {most:,} bytes; scale the image down")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return io.BytesIO(file.read(most))
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise InputError(f"{name} does not exist; check the path") from None
    except OSError as error:
        why = errno.errorcode.get(error.errno or 0, "")
        raise InputError(f"{name} cannot be read ({why}); check the file") from None


def _table(form: str, rows: Any) -> "pd.DataFrame":  # noqa: ANN401 - whatever was sent
    if not find_spec("pandas"):
        raise InputError(
            f"{form} needs pandas, which this server does not have; send files or `images`"
        )
    import pandas as pd

    try:
        if form == "dataframe_split":
            return pd.DataFrame(rows["data"], columns=rows["columns"], dtype=object)
        if isinstance(rows, dict) and form == "inputs":
            return pd.DataFrame(
                {key: _column(values) for key, values in rows.items()}, dtype=object
            )
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise TypeError("rows are objects")
        return pd.DataFrame(rows, dtype=object)
    except (ValueError, TypeError, KeyError, AssertionError):
        raise InputError(
            f"{form} has not the form of MLflow; send "
            '{"dataframe_records": [{"image": "<base64 of a file>"}]}'
        ) from None


def _column(values: object) -> Sequence[object]:
    return values if isinstance(values, list) else [values]
