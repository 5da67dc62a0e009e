"""The check of a remote: every way it can fail is one sentence without a secret."""

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT
from servers import hanging_up

from blackswan.errors import InputError
from tools import azurite, remote

KEY = "c2VjcmV0LXNlY3JldA=="  # pragma: allowlist secret
LISTING = "<?xml version='1.0'?><EnumerationResults><Blobs/><NextMarker/></EnumerationResults>"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a function that writes a DVC repository with one default remote."""
    for name in (
        "STORAGE_CONNECTION_STRING",
        "STORAGE_ACCOUNT",
        "STORAGE_KEY",
        "STORAGE_SAS_TOKEN",
    ):
        monkeypatch.delenv(f"AZURE_{name}", raising=False)
    monkeypatch.setenv("AZURE_CONFIG_DIR", str(tmp_path / "azure"))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)

    def write(url, **settings):
        lines = [
            "[core]",
            "no_scm = true",
            "remote = shared",
            "['remote \"shared\"']",
            f"url = {url}",
        ]
        lines += [f"{key} = {value}" for key, value in settings.items()]
        (root / ".dvc" / "config").write_text("\n".join(lines) + "\n")
        return root

    return write


@pytest.fixture
def service():
    """Return a function that serves one answer to all requests and returns the address."""
    servers = []

    def serve(status, code="", body=LISTING):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                if code:
                    self.send_header("x-ms-error-code", code)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/account"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def connection(endpoint):
    return f"BlobEndpoint={endpoint};AccountName=account;AccountKey={KEY}"


def sentence(root, name=None):
    with pytest.raises(InputError) as caught:
        remote.check(name, root)
    text = str(caught.value)
    assert KEY not in text
    assert "\n" not in text
    return text


def test_an_answering_container_is_named(project, service):
    endpoint = service(200)
    root = project("azure://box/dvc", connection_string=connection(endpoint))
    assert remote.check(None, root) == f"remote shared answers: container box at {endpoint}"
    assert remote.check("shared", root) == remote.check(None, root)


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (
            403,
            "AuthenticationFailed",
            "refuses the credentials (AuthenticationFailed); check the key",
        ),
        (
            403,
            "AuthorizationFailure",
            "refuses the credentials (AuthorizationFailure); check the key",
        ),
        (403, "AuthorizationPermissionMismatch", "ask for the role Storage Blob Data Contributor"),
        (
            404,
            "ContainerNotFound",
            "has no container box; mend the url in .dvc/config, or create it",
        ),
        (404, "", "answers, but with an error (ResourceNotFoundError)"),
        (503, "ServerBusy", "answers, but with an error (ServerBusy)"),
    ],
)
def test_a_refusal_names_the_remedy(project, service, status, code, says):
    body = f"<Error><Code>{code}</Code><Message>signature {KEY}</Message></Error>"
    endpoint = service(status, code, body)
    root = project("azure://box/dvc", connection_string=connection(endpoint))
    text = sentence(root)
    assert text.startswith("remote shared: ")
    assert endpoint in text
    assert says in text


def test_a_dead_endpoint_is_found(project):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}/account"
        root = project("azure://box/dvc", connection_string=connection(endpoint))
        assert sentence(root).startswith(f"remote shared: {endpoint} does not answer; check")


def test_an_endpoint_that_hangs_up_is_soon_given_up(project):
    with hanging_up() as (port, calls):
        endpoint = f"http://127.0.0.1:{port}/account"
        root = project("azure://box/dvc", connection_string=connection(endpoint))
        assert sentence(root).startswith(f"remote shared: {endpoint} does not answer; check")
    assert len(calls) <= 2  # once more by the client itself; DVC would go on for ten minutes


def test_a_silent_endpoint_is_given_up(project, monkeypatch):
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/account"
        root = project("azure://box/dvc", connection_string=connection(endpoint))
        assert "does not answer" in sentence(root)
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # it was asked once
            silent.accept()


def test_the_time_limits_stay_below_fifteen_seconds():
    assert remote.LOGIN_SECONDS + remote.ANSWER_SECONDS <= 11


def test_an_expired_sas_is_named_before_asking(project):
    sas = f"se=2020-01-01T00%3A00%3A00Z&sig={KEY}"
    secret = f"BlobEndpoint=http://127.0.0.1:9/account;SharedAccessSignature={sas}"
    root = project("azure://box/dvc", connection_string=secret)
    assert sentence(root) == "remote shared: the SAS token has expired; make another"


@pytest.mark.parametrize("settings", [{}, {"connection_string": f"nonsense {KEY}"}])
def test_incomplete_settings_name_what_to_set(project, settings):
    text = sentence(project("azure://box/dvc", **settings))
    assert "set account_name in .dvc/config and run `az login`" in text


def test_a_key_that_is_not_base64_is_no_credential(project, service):
    secret = connection(service(200)).replace(KEY, "not base64")
    assert "no valid credentials for" in sentence(project("azure://box", connection_string=secret))


def test_a_local_remote_must_exist(project, tmp_path):
    root = project(tmp_path / "shelf")
    assert f"folder {tmp_path / 'shelf'} is missing" in sentence(root)
    (tmp_path / "shelf").mkdir()
    assert remote.check(None, root) == f"remote shared is the folder {tmp_path / 'shelf'}"


def test_an_unknown_remote_and_a_missing_repository(project, tmp_path):
    root = project(tmp_path / "shelf")
    assert "remote 'other' doesn't exist; `dvc remote list` shows" in sentence(root, "other")
    (root / ".dvc" / "config").write_text("[core]\nno_scm = true\n")
    assert sentence(root).startswith("no default remote; choose one with")
    assert sentence(tmp_path).endswith("is no DVC repository; run inside a clone")


BROKEN = [
    ("connection_string {}", "line 7 of {} is no `key = value`; mend or remove it"),
    ("connection_string BlobEndpoint=http://x;{}", "line 7 of {} is no `key = value`"),
    ("account_key = {0}\naccount_key = {0}", "line 8 of {} cannot be read; mend or remove it"),
    ("connection_string = '{}", "line 7 of {} cannot be read; mend or remove it"),
    ("[{}", "line 7 of {} is no `key = value`; mend or remove it"),
    ("conection_string = {}", "the DVC setting remote.shared.conection_string is unknown or wrong"),
]


@pytest.mark.parametrize(("line", "says"), BROKEN)
@pytest.mark.parametrize("file", ["config", "config.local"])
def test_a_broken_line_is_named_by_its_number_and_not_quoted(project, file, line, says):
    path = project("azure://box/dvc") / ".dvc" / file
    whole = (path.parent / "config").read_text()
    (path.parent / "config").write_text("[core]\nno_scm = true\n")
    path.write_text(whole + f"# a comment\n{line.format(KEY)}\n")
    said = sentence(path.parent.parent)
    assert said.startswith(says.format(path))
    assert KEY.strip("=").lower() not in said.lower()


def test_a_configuration_of_another_encoding_is_named(project):
    path = project("azure://box/dvc") / ".dvc" / "config.local"
    path.write_bytes(f"[core]\npassword = {KEY}\xe9\n".encode("latin-1"))
    assert sentence(path.parent.parent) == f"{path} is not UTF-8 at byte 38; save it as UTF-8"


@pytest.mark.parametrize(
    "name",
    ["AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_KEY",
     "AZURE_CLIENT_SECRET"],
)  # fmt: skip
@pytest.mark.parametrize("value", ["{}\r", "{}\n", " {}", "{}\r\nx", "{}\x07", "{}é"])
def test_a_secret_with_a_line_end_is_refused_unseen(project, monkeypatch, name, value):
    monkeypatch.setenv(name, value.format(KEY))
    said = sentence(project("azure://box/dvc", account_name="account"))
    assert said.startswith(f"{name} holds a line end, a control character")
    assert r"sed -i 's/\r$//' .env" in said


@pytest.mark.parametrize(
    "secret",
    [
        f"BlobEndpoint=http://me:{KEY}@127.0.0.1:9/a;AccountName=a",
        f"BlobEndpoint=http://me:{KEY}@127.0.0.1:9/a;AccountName=a;AccountKey=QUFB",
        f"BlobEndpoint=http://127.0.0.1:9/a?sig={KEY};AccountName=a",
        f"BlobEndpoint=http://[{KEY}/a;AccountName=a;AccountKey=QUFB",
        f"BlobEndpoint=http://127.0.0.1:9/a;SharedAccessSignature=sig={KEY}",
        f"BlobEndpoint=http://127.0.0.1:9/a;AccountName=a;AccountKey={KEY}*",
    ],
)
def test_settings_that_make_no_address_are_one_sentence(project, secret):
    root = project("azure://box/dvc", connection_string=secret)
    assert sentence(root).startswith("remote shared: ")


@pytest.mark.parametrize(
    ("local", "environment", "says"),
    [
        (f"[core]\nremote {KEY}\n", {}, "error: line 2 of .dvc/config.local is no `key = value`"),
        ("", {"AZURE_STORAGE_SAS_TOKEN": f"sv=1&sig={KEY}\r"}, "error: AZURE_STORAGE_SAS_TOKEN"),
        ("", {"AZURE_STORAGE_CONNECTION_STRING": f"x;AccountKey={KEY}"}, "error: remote shared: "),
        ("", {"AZURE_STORAGE_CONNECTION_STRING": connection("http://127.0.0.1:9/account"),
              "HTTP_PROXY": f"http://me:{KEY}@127.0.0.1:9"}, "error: remote shared: http://127."),
    ],
)  # fmt: skip
def test_a_process_prints_one_sentence_without_the_secret(project, local, environment, says):
    root = project("azure://box/dvc")
    (root / ".dvc" / "config.local").write_text(local)
    process = subprocess.run(
        [sys.executable, Path(remote.__file__).resolve()], cwd=root, capture_output=True, text=True,
        check=False, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip
    assert process.returncode == 1
    assert process.stderr.startswith(says)
    assert len((process.stdout + process.stderr).splitlines()) == 1
    assert KEY not in process.stderr


def test_the_emulator_lets_dvc_quote_no_line(project, monkeypatch, capfd):
    root = project("azure://box/dvc")
    (root / ".dvc" / "config.local").write_text(f"[core]\nconnection_string {KEY}\n[\n")
    monkeypatch.chdir(root)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(InputError, match=r"let `python tools/remote\.py` name the line"):
        azurite.dvc("remote", "list", "--local")
    assert capfd.readouterr() == ("", "")
