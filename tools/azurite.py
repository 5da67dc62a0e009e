"""Start Azurite, Azure's own storage emulator, on loopback and make it this clone's DVC remote.

    python tools/azurite.py start     then: dvc push, dvc pull
    python tools/azurite.py stop

The remote is written to .dvc/config.local, which git ignores. Needs node and npm.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from azure.core.exceptions import AzureError, ResourceExistsError
from azure.storage.blob import BlobServiceClient

from blackswan.errors import InputError, run, without_secrets

VERSION = "3.35.0"
SOFTWARE = Path(__file__).resolve().parent.parent / ".azurite" / "software"
REMOTE, CONTAINER = "azurite", "blackswan"
START_SECONDS, STOP_SECONDS = 30, 10

# Published by Microsoft, the same in every Azurite: it opens nothing but an emulator.
ACCOUNT = "devstoreaccount1"
# pragma: allowlist nextline secret
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def connection_string(port: int) -> str:
    """Return what opens the emulator on `port`."""
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    return f"BlobEndpoint={endpoint};AccountName={ACCOUNT};AccountKey={KEY}"


def install() -> Path:
    """Install the pinned emulator from npm unless it is there; return its program."""
    program = SOFTWARE / VERSION / "node_modules" / ".bin" / "azurite-blob"
    if program.exists():
        return program
    if not shutil.which("npm"):
        raise InputError("npm is missing; install Node.js 18 or newer (apt-get install nodejs npm)")
    print(f"Installing Azurite {VERSION} into {SOFTWARE}")
    command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"]
    command += ["--prefix", str(SOFTWARE / VERSION), f"azurite@{VERSION}"]
    npm = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if npm.returncode:
        said = without_secrets(" ".join(npm.stderr.split("\n")[:3]), "its words may hold a secret")
        raise InputError(f"npm could not install azurite ({said}); mend that and run again")
    return program


def start(folder: Path, port: int) -> None:
    """Run the emulator in the background with its files in `folder`, and point DVC at it.

    One that runs already, such as that of another clone, is joined.
    """
    pid = running(folder)
    if pid is None and answers(port):
        print("Joining the emulator that another clone has started.")
    else:
        wait(folder, pid or spawn(folder, port), port)
    create_container(port)
    secret = connection_string(port)
    url = f"azure://{CONTAINER}/dvc"
    dvc("remote", "add", "--quiet", "--local", "--force", "--default", REMOTE, url)
    dvc("remote", "modify", "--quiet", "--local", REMOTE, "connection_string", secret)
    print(f"Azurite runs on 127.0.0.1:{port}; the default remote of this clone is now {REMOTE}.")
    print("Next: make push, make pull, and make azurite-stop when done.")


def create_container(port: int) -> None:
    """Create the container unless it is there; raise InputError where no emulator answers."""
    service = BlobServiceClient.from_connection_string(
        connection_string(port), retry_total=0, connection_timeout=5, read_timeout=5
    )
    try:
        with suppress(ResourceExistsError):  # from an earlier start
            service.create_container(CONTAINER)
    except AzureError:
        raise InputError(
            f"port {port} is taken by something that is no Azurite; choose another with --port, or "
            "free it"
        ) from None


def spawn(folder: Path, port: int) -> int:
    """Start the emulator as a process that outlives this one; return its id."""
    program = install()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("w") as log:
        # Without --skipApiVersionCheck it refuses newer clients by version, though it serves them.
        command = [str(program), "--skipApiVersionCheck", "--silent", "--disableTelemetry"]
        command += ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
        command += ["--location", str(folder / "data")]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    (folder / "pid").write_text(str(process.pid))
    return process.pid


def wait(folder: Path, pid: int, port: int) -> None:
    """Return once the emulator answers; raise InputError where it ends or stays silent."""
    deadline = time.monotonic() + START_SECONDS
    while not answers(port):
        if running(folder) != pid or time.monotonic() > deadline:
            raise InputError(f"Azurite did not start on port {port}; {folder / 'log'} says why")
        time.sleep(0.2)


def answers(port: int) -> bool:
    """Tell whether something listens on `port` of this machine."""
    with socket.socket() as connection:
        connection.settimeout(1)
        return connection.connect_ex(("127.0.0.1", port)) == 0


def running(folder: Path) -> int | None:
    """Return the id of the emulator that was started in `folder`, if it still runs."""
    try:
        pid = int((folder / "pid").read_text())
    except (FileNotFoundError, ValueError):
        return None
    # Ids are used again: only a process whose command is azurite is ours.
    command = ["ps", "-o", "stat=,command=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return pid if "azurite" in shown and not shown.startswith("Z") else None


def stop(folder: Path) -> None:
    """End the emulator and take its remote out of .dvc/config.local; what was pushed stays."""
    pid = running(folder)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while running(folder) == pid:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
    (folder / "pid").unlink(missing_ok=True)
    show = ["dvc", "config", "--local", "--list"]
    shown = subprocess.run(show, capture_output=True, text=True, check=False).stdout
    if f"remote.{REMOTE}.url" in shown:
        dvc("remote", "remove", "--quiet", "--local", REMOTE)
    print("Azurite is stopped." if pid else "This clone had started no Azurite.")


def dvc(*arguments: str) -> None:
    """Run a DVC command in the working directory."""
    # Not shown: of a line it cannot read, DVC prints what stands there.
    if subprocess.run(["dvc", *arguments], check=False, capture_output=True).returncode:
        raise InputError(
            "DVC could not change .dvc/config.local; run from the top of a clone, and let "
            "`python tools/remote.py` name the line if it is broken"
        )


def main() -> None:
    """Start or stop the emulator."""
    parser = argparse.ArgumentParser(description="Start or stop Azure's storage emulator.")
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("--folder", type=Path, default=Path(".azurite"), help="of its data and log")
    parser.add_argument("--port", type=int, default=10000)
    arguments = parser.parse_args()
    if arguments.action == "start":
        start(arguments.folder, arguments.port)
    else:
        stop(arguments.folder)


if __name__ == "__main__":
    run(main)
