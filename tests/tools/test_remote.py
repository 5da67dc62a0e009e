"""The check of a remote: every way it can fail is one sentence without a secret."""

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from blackswan.errors import InputError
from tools import remote

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


def test_a_dead_endpoint_is_found_at_once(project):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}/account"
        root = project("azure://box/dvc", connection_string=connection(endpoint))
        begin = time.monotonic()
        assert sentence(root).startswith(f"remote shared: {endpoint} does not answer; check")
        assert time.monotonic() - begin < 5


def test_a_silent_endpoint_is_given_up(project, monkeypatch):
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/account"
        root = project("azure://box/dvc", connection_string=connection(endpoint))
        begin = time.monotonic()
        assert "does not answer" in sentence(root)
        assert time.monotonic() - begin < 5


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
