"""A file of a server, over TLS all the way."""

import hashlib
from pathlib import Path

import httpx
from tqdm import tqdm

from blackswan.errors import InputError, cause
from blackswan.outputs import replace_file

TIMEOUT_SECONDS = 10.0  # of silence
CHUNK = 1 << 20  # bytes
REDIRECTS = 10  # at most


def download(url: str, path: Path, what: str) -> str:
    """Write the file at an https `url` to `path`, whole or not at all; return its sha256.

    Redirects are followed as long as they stay on https. Proxies and certificates are those of the
    environment (HTTPS_PROXY, SSL_CERT_FILE). Raises InputError, which begins with `what`.
    """
    try:
        client = httpx.Client(
            timeout=TIMEOUT_SECONDS, follow_redirects=True, max_redirects=REDIRECTS,
            event_hooks={"request": [lambda request: _check(request, what)]},
        )  # fmt: skip
    except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:  # proxies, certificates
        raise _unreachable(what, error) from None
    try:
        with client, client.stream("GET", url) as answer, replace_file(path) as partial:
            if answer.status_code != httpx.codes.OK:
                raise InputError(
                    f"{what} is not to be had: the server answers {answer.status_code} "
                    f"{httpx.codes.get_reason_phrase(answer.status_code)}; correct the address"
                )
            return _write(answer, partial)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(what, error) from None


def _unreachable(what: str, error: Exception) -> InputError:
    return InputError(
        f"{what} cannot be downloaded ({cause(error)}); check the network, or download it on "
        "another machine and name the copy with source: folder"
    )


def _check(request: httpx.Request, what: str) -> None:
    if request.url.scheme != "https":
        raise InputError(
            f"{what} leads to an address of {request.url.scheme}, which anyone on the way can "
            "change; name one that stays on https"
        )


def _write(answer: httpx.Response, path: Path) -> str:
    """Stream an answer to `path`; return its sha256."""
    digest = hashlib.sha256()
    length = answer.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    with (
        path.open("wb") as file,
        tqdm(total=total, desc="download", unit="B", unit_scale=True, disable=None) as bar,
    ):
        for chunk in answer.iter_bytes(CHUNK):
            file.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
