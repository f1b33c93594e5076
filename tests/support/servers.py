"""Servers on 127.0.0.1 for answers that the simulator does not give: broken, hostile or slow."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import struct
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    Answering = Callable[["RawServer", socket.socket], None]


class RawServer(socketserver.ThreadingTCPServer):
    """Reads whole HTTP requests and hands the connection to ``answering`` after each."""

    daemon_threads = False  # joined on close: no test leaves one behind
    allow_reuse_address = True

    def __init__(self, answering: Answering, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.answering = answering
        self.tls = tls
        self.requests: list[bytes] = []  # head and body as received
        self.connections = 0
        self.stopping = threading.Event()

    @property
    def base_url(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.server_address[1]}/open_api/v1.3"


class _Connection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server = cast("RawServer", self.server)
        server.connections += 1
        connection: socket.socket = self.request
        connection.settimeout(10)
        with suppress(OSError):  # the client hung up, as many tests intend
            if server.tls is not None:
                connection = server.tls.wrap_socket(connection, server_side=True)
            with connection:
                while request := _read_request(connection):
                    server.requests.append(request)
                    server.answering(server, connection)


def _read_request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        piece = connection.recv(65536)
        if not piece:
            return b""
        request += piece
    head, _, body = request.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    length = int(lengths[0].partition(b":")[2]) if lengths else 0
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def serving(answering: Answering, tls: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    """Serve in the background."""
    server = RawServer(answering, tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()


def envelope(code: Any = 0, data: Any = None, message: str = "OK") -> bytes:
    """TikTok's envelope as JSON."""
    data = {} if data is None else data
    answer = {"code": code, "message": message, "request_id": "20261122ABC", "data": data}
    return json.dumps(answer).encode()


def http(body: bytes, *, status: str = "200 OK", headers: Iterable[str] = ()) -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


# What a server may do with a connection


def send(*answers: bytes) -> Answering:
    """Give these answers in order, then repeat the last one; keep the connection."""
    waiting = list(answers)

    def answer(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(waiting.pop(0) if len(waiting) > 1 else waiting[0])

    return answer


def send_and_close(answer: bytes) -> Answering:
    """Send these bytes, even if they promise more, and hang up."""

    def close(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    return close


def reset(server: RawServer, connection: socket.socket) -> None:
    """Reset the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def stay_silent(server: RawServer, connection: socket.socket) -> None:
    server.stopping.wait(10)


def drip(start: bytes, piece: bytes, pause_seconds: float) -> Answering:
    """Send ``start`` at once and then ``piece`` forever, with pauses."""

    def trickle(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(start)
        while not server.stopping.wait(pause_seconds):
            connection.sendall(piece)

    return trickle


# Ports at which nothing answers


@contextmanager
def refused_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def unaccepting_port() -> Iterator[int]:
    """A port whose queue is full: connecting to it never succeeds."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        waiting = []
        try:
            for _ in range(4):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(("127.0.0.1", port))
            yield port
        finally:
            for one in waiting:
                one.close()


# TLS


def self_signed(folder: Path, *, host: str = "127.0.0.1") -> tuple[ssl.SSLContext, str]:
    """A server's TLS context with its own certificate, and the path of the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "TikTok's stand-in")])
    now = datetime.now(UTC)
    address: x509.GeneralName = (
        x509.IPAddress(IPv4Address(host)) if host[0].isdecimal() else x509.DNSName(host)
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, str(path)
