"""Ask a DVC remote whether it answers, before `dvc push` or `dvc pull` retries for ten minutes.

    python tools/remote.py [name]

The client is the one DVC itself would use, with its configuration, environment variables and login,
but without retries and with short time limits. No message holds a key, a token or a password.
"""

import argparse
import asyncio
import logging
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from configobj import ConfigObj, ConfigObjError
from dvc.config import Config, ConfigError, RemoteNotFoundError
from dvc.exceptions import NotDvcRepoError
from dvc.fs import get_cloud_fs
from dvc.repo import Repo
from dvc_objects.fs.errors import AuthError
from fsspec.asyn import sync

from blackswan.errors import InputError, cause, explained, shown, without_secrets

LOGIN_SECONDS = 7.0  # the environment, the cloud's own address and `az` are tried in turn
ANSWER_SECONDS = 4.0

SECRETS = (
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_KEY",
    "AZURE_CLIENT_SECRET",
)
CONFIG_LINE = re.compile(r"\s*(#|\[.*\]|[\w.-]+\s*=)")
LOG_IN = (
    "run `az login`, or set AZURE_STORAGE_CONNECTION_STRING, or set AZURE_STORAGE_SAS_TOKEN"
    " (README, Share through Azure)"
)


def check(name: str | None = None, root: Path = Path()) -> str:
    """Return one sentence that says what answered.

    `name` defaults to the default remote of the DVC repository at `root`. Raises InputError where
    the remote is unknown or does not answer, refuses the credentials, or lacks the container.
    A remote on neither Azure nor a local disk is passed unasked.
    """
    _check_environment()
    try:
        with Repo(str(root)) as repo:
            config = repo.config
        name = name or config["core"].get("remote")
        if not name:
            raise InputError("no default remote; choose one with `dvc remote default azure`")
        kind, settings, path = get_cloud_fs(config, name=name)
    except NotDvcRepoError:
        raise InputError(f"{root.resolve()} is no DVC repository; run inside a clone") from None
    except RemoteNotFoundError:
        raise InputError(
            f"remote {shown(repr(name))} doesn't exist; `dvc remote list` shows those there are"
        ) from None
    except ConfigError as error:
        raise InputError(_broken_config(root, str(error))) from None
    except ImportError as error:
        raise InputError(f"remote {shown(name)}: {cause(error)}") from None
    if kind.protocol == "local":
        if not Path(path).is_dir():
            raise InputError(
                f"remote {shown(name)}: folder {path} is missing; create it or mount its disk"
            )
        return f"remote {shown(name)} is the folder {shown(str(path))}"
    if kind.protocol != "azure":
        return f"remote {shown(name)} is on {kind.protocol}, which is not checked"
    return _check_azure(name, kind, settings, path)


def _check_environment() -> None:
    """Refuse what a .env file with Windows line ends sets: DVC would send it as it is."""
    for name in SECRETS:
        value = os.environ.get(name, "")
        if value != value.strip() or not (value.isascii() and value.isprintable()):
            raise InputError(
                f"{name} holds a line end, a control character or one beyond ASCII, or a space at "
                "an end; set it again (of a .env file, `sed -i 's/\\r$//' .env` mends the lines)"
            )


def _broken_config(root: Path, said: str) -> str:
    """Say where the configuration of DVC is broken, without what stands there."""
    for path in _config_files(root):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            ConfigObj(lines)
        except ConfigObjError as error:
            first = (getattr(error, "errors", None) or [error])[0]
            return f"line {first.line_number} of {path} cannot be read; mend or remove it"
        except UnicodeDecodeError as error:
            return f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8"
        for number, line in enumerate(lines, start=1):
            if line.strip() and not CONFIG_LINE.match(line):
                return f"line {number} of {path} is no `key = value`; mend or remove it"
    # voluptuous ends with the place: ... @ data['remote']['azure']['jobs']
    place = re.search(r" @ data((?:\['\w+'\])+)$", said)
    keys = ".".join(re.findall(r"\w+", place[1])) if place else "in one of its files"
    setting = without_secrets(f"the DVC setting {keys}".strip(), "a DVC setting")
    return f"{setting} is unknown or wrong; mend it in .dvc/config or .dvc/config.local"


def _config_files(root: Path) -> Iterator[Path]:
    for folder in (Config.get_dir("system"), Config.get_dir("global"), root / ".dvc"):
        for name in (Config.CONFIG, Config.CONFIG_LOCAL):
            if (Path(folder) / name).is_file():
                yield Path(folder) / name


def _check_azure(name: str, kind: Any, settings: dict[str, Any], path: str) -> str:  # noqa: ANN401
    logging.getLogger("azure").setLevel(logging.CRITICAL)  # the sentence below says it once
    name, container, prefix = shown(name), *path.partition("/")[::2]
    try:
        filesystem = kind(**settings).fs
    except (AuthError, ValueError, AzureError):
        raise InputError(
            f"remote {name}: the connection string is malformed, or neither it nor an account_name"
            f" is set; set account_name in .dvc/config and {LOG_IN}"
        ) from None
    service = filesystem.service_client
    if _sas_has_expired(service.url):
        raise InputError(f"remote {name}: the SAS token has expired; make another")
    endpoint = without_secrets(f"{service.scheme}://{service.primary_hostname}", "the endpoint")
    try:
        if hasattr(filesystem.credential, "get_token"):
            sync(filesystem.loop, _log_in, filesystem.credential)
        sync(filesystem.loop, _list_one, service.get_container_client(container), prefix)
    except (AzureError, TimeoutError, ValueError) as error:
        said = _explain(error, endpoint, without_secrets(container, "of the url"))
        raise InputError(f"remote {name}: {said}") from None
    return f"remote {name} answers: container {container} at {endpoint}"


def _sas_has_expired(url: str) -> bool:
    expiry = parse_qs(urlsplit(url).query).get("se", [""])[0]
    try:
        moment = datetime.fromisoformat(expiry)
    except ValueError:  # no SAS token, or one whose expiry only the service knows
        return False
    return moment.replace(tzinfo=moment.tzinfo or UTC) < datetime.now(UTC)


async def _log_in(credential: Any) -> None:  # noqa: ANN401 - any Azure credential
    try:
        login = credential.get_token("https://storage.azure.com/.default")
        await asyncio.wait_for(login, LOGIN_SECONDS)
    except TimeoutError:
        raise ClientAuthenticationError("no credential answered in time") from None


async def _list_one(container: Any, prefix: str) -> None:  # noqa: ANN401 - azure's client, untyped
    """Ask for the first blob: what reading and writing need too, with a key, a SAS or a role."""

    async def first_page() -> None:
        pages = container.list_blobs(
            name_starts_with=prefix or None,
            results_per_page=1,
            retry_total=0,
            connection_timeout=ANSWER_SECONDS,
            read_timeout=ANSWER_SECONDS,
        ).by_page()
        async for _ in pages:
            return

    await asyncio.wait_for(first_page(), ANSWER_SECONDS)


def _explain(error: Exception, endpoint: str, container: str) -> str:
    """Say what is wrong and what to do, without the service's text: that can quote a signature."""
    code = getattr(error, "error_code", None)
    code = str(getattr(code, "value", code))  # what a header of the answer holds
    code = code if code != "None" and re.fullmatch("[A-Za-z]{1,60}", code) else type(error).__name__
    if isinstance(error, TimeoutError | ServiceRequestError | ServiceResponseError):
        return (
            f"{endpoint} does not answer; check account_name, the network and proxy,"
            " or start the emulator with `make azurite`"
        )
    if isinstance(error, ValueError):
        return f"{endpoint} is no address; mend connection_string, account_name or the SAS token"
    if code == "ContainerNotFound":
        return (
            f"{endpoint} has no container {container}; mend the url in .dvc/config, or create it:"
            f" az storage container create --name {container} --blob-endpoint {endpoint}"
        )
    if isinstance(error, ClientAuthenticationError) and getattr(error, "response", None) is None:
        return f"no valid credentials for {endpoint}; {LOG_IN}"
    if code == "AuthorizationPermissionMismatch":
        return (
            f"the login may not list container {container} at {endpoint};"
            " ask for the role Storage Blob Data Contributor, or for a SAS with rwl permissions"
        )
    if isinstance(error, HttpResponseError) and error.status_code in (401, 403):
        return (
            f"{endpoint} refuses the credentials ({code});"
            " check the key, connection string or SAS token, and the account's firewall"
        )
    return f"{endpoint} answers, but with an error ({code}); check account_name, or try again later"


def main() -> None:
    """Check the remote named on the command line, or the default one."""
    parser = argparse.ArgumentParser(description="Check that a DVC remote answers.")
    parser.add_argument("name", nargs="?", help="of `dvc remote list`; else the default one")
    print(check(parser.parse_args().name))


if __name__ == "__main__":
    explained(main)
