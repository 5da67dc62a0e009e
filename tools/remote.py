"""Ask a DVC remote whether it answers, before `dvc push` or `dvc pull` retries for ten minutes.

    python tools/remote.py [name]

The client is the one DVC itself would use, with its configuration, environment variables and login,
but without retries and with short time limits. No message holds a key, a token or a password.
"""

import argparse
import asyncio
import logging
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
from dvc.config import ConfigError
from dvc.exceptions import NotDvcRepoError
from dvc.fs import get_cloud_fs
from dvc.repo import Repo
from dvc_objects.fs.errors import AuthError
from fsspec.asyn import sync

from blackswan.errors import InputError, run

LOGIN_SECONDS = 7.0  # the environment, the cloud's own address and `az` are tried in turn
ANSWER_SECONDS = 4.0

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
    try:
        with Repo(str(root)) as repo:
            config = repo.config
        name = name or config["core"].get("remote")
        if not name:
            raise InputError("no default remote; choose one with `dvc remote default azure`")
        kind, settings, path = get_cloud_fs(config, name=name)
    except NotDvcRepoError:
        raise InputError(f"{root.resolve()} is no DVC repository; run inside a clone") from None
    except ConfigError as error:
        raise InputError(f"{error}; `dvc remote list` shows those there are") from None
    except ImportError as error:
        raise InputError(f"remote {name}: {error}") from None
    if kind.protocol == "local":
        if not Path(path).is_dir():
            raise InputError(
                f"remote {name}: folder {path} is missing; create it or mount its disk"
            )
        return f"remote {name} is the folder {path}"
    if kind.protocol != "azure":
        return f"remote {name} is on {kind.protocol}, which is not checked"
    return _check_azure(name, kind, settings, path)


def _check_azure(name: str, kind: Any, settings: dict[str, Any], path: str) -> str:  # noqa: ANN401
    logging.getLogger("azure").setLevel(logging.CRITICAL)  # the sentence below says it once
    container, _, prefix = path.partition("/")
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
    endpoint = f"{service.scheme}://{service.primary_hostname}"
    try:
        if hasattr(filesystem.credential, "get_token"):
            sync(filesystem.loop, _log_in, filesystem.credential)
        sync(filesystem.loop, _list_one, service.get_container_client(container), prefix)
    except (AzureError, TimeoutError) as error:
        raise InputError(f"remote {name}: {_explain(error, endpoint, container)}") from None
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
    code = getattr(code, "value", code) or type(error).__name__
    if isinstance(error, TimeoutError | ServiceRequestError | ServiceResponseError):
        return (
            f"{endpoint} does not answer; check account_name, the network and proxy,"
            " or start the emulator with `make azurite`"
        )
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
    run(main)
