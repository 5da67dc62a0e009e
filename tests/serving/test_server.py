"""The service on a real socket: slow heads, many requests, and the command with what it needs."""

import socket
import threading

import httpx
import numpy as np
import pytest
from conftest import make_model
from servers import running
from typer.testing import CliRunner

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from blackswan import cli
from blackswan.data.images import encode_png
from blackswan.errors import InputError
from blackswan.serving import server
from blackswan.serving.app import Service
from blackswan.serving.detectors import Folder, Loaded
from blackswan.serving.limits import Limits


@pytest.fixture
def service():
    service = Service(Loaded(make_model(), "here", "abc.dir", None))
    yield service
    service.close()


def receive(connection):
    """Return what comes until the other side hangs up."""
    connection.settimeout(20)
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("sent", [b"", b"GET /ping HT", b"GET /ping HTTP/1.1\r\nHost: a\r\nX: "])
def test_a_head_that_does_not_arrive_is_hung_up_on(service, sent):
    with running(service.app, 0.05) as port, socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(sent)
        assert receive(slow) == b""


def test_a_connection_is_used_again_and_its_next_head_is_awaited(service):
    whole = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
    with running(service.app, 0.2) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(whole)
        answered = client.makefile("rb")
        assert answered.readline() == b"HTTP/1.1 200 OK\r\n"
        while answered.readline() != b"\r\n":
            pass
        assert answered.read(15) == b'{"status":"ok"}'
        client.sendall(whole[:12])
        client.sendall(whole[12:] + whole[:12])  # the rest of the second, and half of a third
        assert receive(client).startswith(b"HTTP/1.1 200 OK")


def test_a_body_of_a_gigabyte_is_refused_at_its_head(service):
    head = b"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n"
    with running(service.app) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(head)
        assert receive(client).startswith(b"HTTP/1.1 413 ")


def test_requests_of_many_clients_are_each_answered_right(service):
    def body(level):
        photo = np.full((16, 16, 3), 100, np.uint8)
        photo[4:6, 4:6] = level
        return {"images": ("a.png", encode_png(photo))}

    levels = [*range(100, 140)]
    expected = {}
    with running(service.app) as port:
        url, found = f"http://127.0.0.1:{port}/v1/score", {}

        def ask(level):
            answer = httpx.post(url, files=body(level), timeout=30).json()
            found[level] = answer["results"][0]["image_score"]

        for level in levels:
            ask(level)
        expected, found = found, {}
        threads = [threading.Thread(target=ask, args=[level]) for level in levels]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == expected
    assert len(set(expected.values())) > 10


def test_a_client_that_hangs_up_is_not_waited_for(service):
    head = b"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf"
    with running(service.app) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head)
        assert httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
    assert service.scorer.pending == 0


def test_the_command_says_what_it_lacks(tmp_path, monkeypatch):
    runner = CliRunner()
    gone = runner.invoke(cli.app, ["serve", str(tmp_path / "none")])
    assert gone.exit_code == 1
    assert str(gone.exception).startswith(f"error: {tmp_path / 'none'} is no folder; name one")
    monkeypatch.setattr(cli, "find_spec", lambda _: None)
    bare = runner.invoke(cli.app, ["serve", str(tmp_path)])
    assert str(bare.exception) == (
        "error: the service needs the extra `serve`; pip install -e '.[serve]'"
    )


def test_a_port_that_is_taken_ends_in_one_sentence(monkeypatch, tmp_path):
    loaded = Loaded(make_model(), "here", "abc.dir", None)
    monkeypatch.setattr(server, "load_detector", lambda _: loaded)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 cannot be used"):
            server.serve(Folder(str(tmp_path)), "127.0.0.1", port, Limits(), 0)
