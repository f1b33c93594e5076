"""Bodies that the transport reads: large, slow, compressed, or mislabelled."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import requests

from django_tiktok_business.api.oauth import OAuth
from django_tiktok_business.exceptions import ConnectionFailedError, InvalidResponseError
from tests.support import servers
from tests.support.clients import (
    ACCESS_TOKEN,
    CALLS,
    GRANT,
    GRANTED,
    REFRESH_TOKEN,
    client_of,
    refresh_error_at,
)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LONG = 8 * 1024 * 1024


class WithoutRead1:
    """A body as urllib3 1 offers it: it can be read, but not as it comes in."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.stream = raw.stream
        self.close = raw.close
        self.release_conn = raw.release_conn


def session_without_read1() -> requests.Session:
    def hide(response: requests.Response, **_: Any) -> None:
        response.raw = WithoutRead1(response.raw)

    session = requests.Session()
    session.hooks["response"].append(hide)
    return session


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD + b"Content-Length: 10000\r\n\r\n", b"{"),
        (HEAD + b"Content-Length: 10000\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"{"),
         gzip.compress(b" ")),
        (HEAD + b"Content-Length: 10000\r\nContent-Encoding: gzip\r\n\r\n"
         + b"\x1f\x8b\x08\x08\0\0\0\0\0\x03", b"a"),
        (HEAD + b"Content-Length: 10000\r\nContent-Encoding: deflate\r\n\r\n\x78\x9c",
         b"\0\0\0\xff\xff"),
        (HEAD + b"\r\n", b"{"),
        (CHUNKED, b"1\r\n{\r\n"),
        (CHUNKED + b"2000\r\n", b"{"),
    ],
    ids=["length", "gzip", "gzip_name", "empty_blocks", "until_close", "chunks", "one_chunk"],
)  # fmt: skip
@pytest.mark.parametrize("urllib3_version", [1, 2])
def test_f52_body_that_trickles_in_ends_after_the_timeout(
    start: bytes, piece: bytes, urllib3_version: int
) -> None:
    factory = requests.Session if urllib3_version == 2 else session_without_read1
    with servers.serving(servers.drip(start, piece, 0.03)) as server:
        started = time.monotonic()
        error = refresh_error_at(server.base_url, timeout=0.2, session_factory=factory)
        assert time.monotonic() - started < 8  # the shortest body takes 14 seconds
    assert type(error) is ConnectionFailedError
    assert str(error) == (
        "TikTok did not answer within 0.2 seconds; it may have acted on the request."
    )


def test_body_of_a_redirect_is_not_read_to_its_end() -> None:
    with servers.serving(servers.send(GRANTED)) as elsewhere:
        redirect = (
            f"HTTP/1.1 302 Found\r\nLocation: {elsewhere.base_url}/x/\r\n"
            f"Content-Length: {LONG}\r\n\r\n"
        )
        with (
            servers.serving(servers.send(redirect.encode() + bytes(LONG))) as server,
            client_of(base_url=server.base_url, max_attempts=1) as client,
            pytest.raises(InvalidResponseError, match="too large") as caught,
        ):
            CALLS["get"](client)
    assert caught.value.http_status == 302
    assert elsewhere.requests == []


@pytest.mark.parametrize("head", [f"Content-Length: {LONG}", "Connection: close"])
def test_body_that_is_too_large_is_not_read_to_its_end(head: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + b"x" * LONG
    with servers.serving(servers.send_and_close(answer)) as server:
        error = refresh_error_at(server.base_url)
    assert type(error) is InvalidResponseError
    assert str(error) == "TikTok's answer is too large."


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("X-Gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity, deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
        ("identity", bytes),
    ],
)
@pytest.mark.parametrize("urllib3_version", [1, 2])
def test_answer_compressed_against_our_request_is_decompressed(
    urllib3_version: int, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    factory = requests.Session if urllib3_version == 2 else session_without_read1
    compressed = compress(servers.envelope(data={**GRANT, "padding": "x" * 100_000}))
    answer = servers.http(compressed, headers=[f"Content-Encoding: {encoding}"])
    with (
        servers.serving(servers.send(answer)) as server,
        client_of(factory, base_url=server.base_url) as client,
    ):
        assert OAuth(client).refresh(REFRESH_TOKEN).access_token == ACCESS_TOKEN


def test_decompression_bomb_is_not_decompressed_to_its_end() -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(compressor.compress(bytes(1024 * 1024)) for _ in range(64)) + compressor.flush()
    answer = servers.http(bomb, headers=["Content-Encoding: gzip"])
    with servers.serving(servers.send(answer)) as server:
        started = time.process_time()
        error = refresh_error_at(server.base_url)
        assert time.process_time() - started < 1
    assert str(error) == "TikTok's answer is too large."


def session_that_reads() -> requests.Session:
    session = requests.Session()
    seen: list[bytes] = []
    session.hooks["response"].append(lambda response, **_: seen.append(response.content))
    return session


def test_compressed_answer_that_a_hook_has_read_is_used() -> None:
    compressed = gzip.compress(servers.envelope(data=GRANT))
    answer = servers.http(compressed, headers=["Content-Encoding: gzip"])
    with (
        servers.serving(servers.send(answer)) as server,
        client_of(session_that_reads, base_url=server.base_url) as client,
    ):
        assert OAuth(client).refresh(REFRESH_TOKEN).access_token == ACCESS_TOKEN


def test_answer_that_a_hook_cannot_decompress_is_invalid() -> None:
    answer = servers.http(b"no gzip" * 10, headers=["Content-Encoding: gzip"])
    with servers.serving(servers.send(answer)) as server:
        error = refresh_error_at(server.base_url, session_factory=session_that_reads)
    assert str(error) == "TikTok's answer cannot be unpacked."


@pytest.mark.parametrize("urllib3_version", [1, 2])
@pytest.mark.parametrize(
    ("encoding", "compressed"),
    [
        ("gzip", b"no gzip" * 10),
        ("deflate", b"\x78"),
        ("gzip", gzip.compress(bytes(999), mtime=0)[:-9]),
        ("br", b"\x0b\x02\x80hello\x03"),
    ],
)
def test_answer_that_cannot_be_decompressed_is_invalid(
    urllib3_version: int, encoding: str, compressed: bytes
) -> None:
    factory = requests.Session if urllib3_version == 2 else session_without_read1
    answer = servers.http(compressed, headers=[f"Content-Encoding: {encoding}"])
    with servers.serving(servers.send(answer)) as server:
        error = refresh_error_at(server.base_url, session_factory=factory)
    assert type(error) is InvalidResponseError
    assert str(error) == "TikTok's answer cannot be used: it is not a JSON object."


@pytest.mark.parametrize("label", ["gzip", "deflate", "br", "utf-8", "gzip, gzip"])
def test_plain_answer_with_a_wrong_content_encoding_loses_no_token(label: str) -> None:
    answer = servers.http(servers.envelope(data=GRANT), headers=[f"Content-Encoding: {label}"])
    with (
        servers.serving(servers.send(answer)) as server,
        client_of(requests.Session, base_url=server.base_url) as client,
    ):
        assert OAuth(client).refresh(REFRESH_TOKEN).access_token == ACCESS_TOKEN
