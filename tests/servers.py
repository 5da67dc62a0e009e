"""Servers on loopback: one that hangs up, to count how often a client asks, and one over TLS."""

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = tuple[int, dict[str, str], bytes]  # status, headers, body


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def hanging_up() -> Iterator[tuple[int, list[bytes]]]:
    """Listen on loopback and hang up on every request; yield the port and the requests so far."""
    calls: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed
                return
            with connection:
                calls.append(connection.recv(4096))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], calls
        listener.shutdown(socket.SHUT_RDWR)


def write_certificate(folder: Path) -> Path:
    """Write a certificate of 127.0.0.1 that signs itself, and its key, into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + certificate.public_bytes(encoding))
    return path


@contextmanager
def serving(
    answer: Callable[[str], Answer] | None = None,
    certificate: Path | None = None,
    answer_post: Callable[[bytes, dict[str, str]], Answer] | None = None,
) -> Iterator[str]:
    """Serve what `answer` makes of a path, over TLS where there is a certificate; yield the URL.

    `answer_post` makes an answer of the body and the headers of a POST.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(*answer(self.path))

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(*answer_post(content, dict(self.headers)))

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for key, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client that gave up is no fault
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextmanager
def running(app: Any, head_seconds: float = 10.0) -> Iterator[int]:  # noqa: ANN401 - of ASGI
    """Serve an application as `blackswan serve` does; yield the port, and end it."""
    import uvicorn  # of an extra

    from blackswan.serving.server import impatient

    protocol = impatient(head_seconds)
    config = uvicorn.Config(app, port=0, http=protocol, log_level="error", lifespan="off")
    process = uvicorn.Server(config)
    thread = threading.Thread(target=process.run)
    thread.start()
    try:
        while not process.started:
            time.sleep(0.005)
        yield process.servers[0].sockets[0].getsockname()[1]
    finally:
        process.should_exit = True
        thread.join()
