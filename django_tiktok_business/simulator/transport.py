"""How requests reach the simulator: in process through `requests`, or over HTTP."""

from __future__ import annotations

import socket
import socketserver
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool
from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection

from .wire import MAX_BODY_BYTES, Request, Response

Handle = Callable[[Request], Response]


def in_process_session(handle: Handle) -> requests.Session:
    """Return a session that passes every request to `handle`, whatever its host."""
    session = requests.Session()
    session.trust_env = False  # no .netrc entry and no proxy may interfere
    adapter = _InProcessAdapter(handle)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


class _InProcessAdapter(HTTPAdapter):
    """Answers without a socket; transport faults raise what a real connection would raise."""

    def __init__(self, handle: Handle) -> None:
        super().__init__()
        self._handle = handle

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        url = urlsplit(request.url or "")
        response = self._handle(
            Request(
                method=request.method or "",
                path=url.path,
                query=url.query,
                headers={name.lower(): value for name, value in request.headers.items()},
                body=_body(request.body),
            )
        )
        body = response.body
        if response.breakage == "cut_off":
            body = body[: len(body) // 2]
        elif response.breakage is not None:
            raise _failure(response.breakage, request, timeout)
        headers = {**response.headers, "Content-Length": str(len(response.body))}
        raw = HTTPResponse(
            BytesIO(body), headers, response.status, preload_content=False, decode_content=False
        )
        return self.build_response(request, raw)


def _body(body: Any) -> bytes:
    if isinstance(body, str):
        return body.encode()
    return bytes(body) if isinstance(body, bytes | bytearray) else b"".join(body or ())


def _failure(
    breakage: str, request: requests.PreparedRequest, timeout: Any
) -> requests.RequestException:
    """Return the exception, wrapped as `requests` and urllib3 wrap a real one."""
    url = urlsplit(request.url or "")
    host = url.hostname or ""
    pool_class = HTTPSConnectionPool if url.scheme == "https" else HTTPConnectionPool
    pool = pool_class(host, url.port or (443 if url.scheme == "https" else 80))
    connection = HTTPConnection(host, pool.port)
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    if breakage == "timeout_after":
        lost = urllib3_errors.ReadTimeoutError(
            pool, request.path_url, f"Read timed out. (read timeout={read})"
        )
        return requests.ReadTimeout(lost, request=request)
    if breakage == "reset_after":
        reset = ConnectionResetError(104, "Connection reset by peer")
        aborted = urllib3_errors.ProtocolError("Connection aborted.", reset)
        return requests.ConnectionError(aborted, request=request)
    reasons: Mapping[str, tuple[type[requests.ConnectionError], Exception]] = {
        "timeout_before": (
            requests.ConnectTimeout,
            urllib3_errors.ConnectTimeoutError(
                connection, f"Connection to {host} timed out. (connect timeout={connect})"
            ),
        ),
        "connection_refused": (
            requests.ConnectionError,
            urllib3_errors.NewConnectionError(
                connection,
                "Failed to establish a new connection: [Errno 111] Connection refused",
            ),
        ),
        "dns_failure": (
            requests.ConnectionError,
            urllib3_errors.NameResolutionError(
                host, connection, socket.gaierror(-2, "Name or service not known")
            ),
        ),
        "tls_failure": (
            requests.exceptions.SSLError,
            urllib3_errors.SSLError(
                ssl.SSLCertVerificationError(
                    1, "certificate verify failed: self-signed certificate"
                )
            ),
        ),
    }
    kind, reason = reasons[breakage]
    wrapped = urllib3_errors.MaxRetryError(pool, request.path_url, reason)
    return kind(wrapped, request=request)


class Server(ThreadingHTTPServer):
    """An HTTP server on 127.0.0.1; raises `OSError` if the port is taken."""

    request_queue_size = 128
    # Closing the server joins its threads; `close_all` ends their connections first.
    daemon_threads = False

    def __init__(self, port: int, handle: Handle) -> None:
        self.handle = handle
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def server_bind(self) -> None:
        # HTTPServer looks up its own name in the DNS, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.socket.getsockname()[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients may hang up. Anything else is a defect and deserves a traceback.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def close_all(self) -> None:
        """Stop serving: close open connections, join their threads, free the port."""
        self.stopping.set()
        self.shutdown()
        with self._connections_lock:
            for connection in self._connections:
                with suppress(OSError):  # the client has closed it first
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # send head and body in one packet
    server: Server

    def answer(self) -> None:
        body = self._read_body()
        if body is None:
            return
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if headers.get("host", "").partition(":")[0] not in ("", "127.0.0.1", "localhost"):
            # DNS rebinding: a page of another site must not read what only this machine may.
            self._send(Response(421, {"Content-Type": "text/plain"}, b"This is 127.0.0.1."))
            return
        response = self.server.handle(Request(self.command, url.path, url.query, headers, body))
        if response.breakage in (None, "cut_off"):
            self._send(response)
        else:
            self._break_off(response)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer

    def _read_body(self) -> bytes | None:
        """Return the body, or None after refusing one of unknown or excessive length."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self.send_error(411)
        elif int(length) > MAX_BODY_BYTES:
            self.send_error(413)
        else:
            return self.rfile.read(int(length))
        self.close_connection = True
        return None

    def _send(self, response: Response) -> None:
        body = response.body
        if response.breakage == "cut_off":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.send_response_only(response.status)
        self.send_header("Date", self.date_time_string())  # real time, whatever `Clock` says
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _break_off(self, response: Response) -> None:
        """Close the connection without a response; timeouts wait first."""
        self.close_connection = True
        if response.hold_seconds:
            self.server.stopping.wait(response.hold_seconds)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: request lines contain queries. The simulator keeps its own log."""


@contextmanager
def serving(server: Server) -> Iterator[str]:
    """Serve in a background thread; the context manager returns the base URL."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.base_url
    finally:
        server.close_all()
        thread.join()
