"""Handshakes of WebSockets: the answer, its headers, and the line in the access log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trio_channels.server import statistics
from trio_channels.server.frames import BoundedDeflate
from trio_channels.server.handshake import agree

from .clients import close_code, frame, read_all, read_until
from .tables import TRANSPORTS, Notes, access_log, served

KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = b"Sec-WebSocket-Version: 13"
UPGRADE, CONNECTION = b"Upgrade: websocket", b"Connection: Upgrade"


def handshake(*headers: bytes, first: bytes = b"GET /ws HTTP/1.1") -> bytes:
    return b"\r\n".join([first, b"Host: a", *headers, b"", b""])


def key(text: bytes) -> bytes:
    return handshake(UPGRADE, CONNECTION, b"Sec-WebSocket-Key: " + text, VERSION)


def version(*headers: bytes) -> bytes:
    return handshake(UPGRADE, CONNECTION, KEY, *headers)


ACCEPTED = {
    "usual": handshake(UPGRADE, CONNECTION, KEY, VERSION),
    "in other cases": handshake(b"upgrade: WebSocket", b"CONNECTION: UPGRADE", KEY.lower()[:19] + KEY[19:], VERSION),
    "Upgrade in a list": handshake(UPGRADE, b"Connection: keep-alive, Upgrade", KEY, VERSION),
    "Upgrade in the second Connection header": handshake(UPGRADE, b"Connection: x", CONNECTION, KEY, VERSION),
    "Upgrade in the first Connection header": handshake(UPGRADE, CONNECTION, b"Connection: x", KEY, VERSION),
    "an upgrade to several protocols": handshake(b"Upgrade: x, websocket", CONNECTION, KEY, VERSION),
    "an upgrade to several, in two headers": handshake(b"Upgrade: x", UPGRADE, CONNECTION, KEY, VERSION),
    "an absolute target": handshake(UPGRADE, CONNECTION, KEY, VERSION, first=b"GET http://a/ws HTTP/1.1"),
    "an empty line before": b"\r\n" + handshake(UPGRADE, CONNECTION, KEY, VERSION),
}

REFUSED = {
    "an empty key": key(b""),
    "a key of 15 bytes": key(b"dGhlIHNhbXBsZSBub25j"),
    "a key of 17 bytes": key(b"dGhlIHNhbXBsZSBub25jZWE="),
    "a key without its padding": key(b"dGhlIHNhbXBsZSBub25jZQ"),
    "a key that is no base64": key(b"dGhlIHNhbXBsZSBub25jZ!=="),
    "a key in a list": key(b"dGhlIHNhbXBsZSBub25jZQ==, x"),
    "the key twice": handshake(UPGRADE, CONNECTION, KEY, KEY, VERSION),
    "two keys": handshake(UPGRADE, CONNECTION, KEY, b"Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==", VERSION),
    "no key": handshake(UPGRADE, CONNECTION, VERSION),
    "no ASCII": handshake(UPGRADE, CONNECTION, KEY, VERSION, b"Sec-WebSocket-Protocol: \xe9"),
}

OTHER_VERSIONS = {
    "none": version(),
    "an empty one": version(b"Sec-WebSocket-Version:"),
    "8": version(b"Sec-WebSocket-Version: 8"),
    "14": version(b"Sec-WebSocket-Version: 14"),
    "013": version(b"Sec-WebSocket-Version: 013"),
    "a list": version(b"Sec-WebSocket-Version: 13, 8"),
    "twice": version(VERSION, VERSION),
    "and no key": handshake(UPGRADE, CONNECTION, b"Sec-WebSocket-Version: 8"),
}

#: Requests for the same path that are no handshakes.
HTTP = {
    "HTTP/1.0": handshake(UPGRADE, CONNECTION, KEY, VERSION, first=b"GET /ws HTTP/1.0"),
    "a POST": handshake(UPGRADE, CONNECTION, KEY, VERSION, b"Connection: close", first=b"POST /ws HTTP/1.1"),
    "no Connection": handshake(UPGRADE, KEY, VERSION, b"Connection: close"),
    "no Upgrade": handshake(CONNECTION, KEY, VERSION, b"Connection: close"),
    "another upgrade": handshake(b"Upgrade: websockets", CONNECTION, KEY, VERSION, b"Connection: close"),
}


def table(rows: dict[str, bytes]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("data", rows.values(), ids=rows)


over = pytest.mark.parametrize("transport", TRANSPORTS)


async def answer_to(data: bytes, transport: str, certificate: tuple[Path, Path]) -> tuple[bytes, list[str]]:
    """All bytes until the server closes, and the lines in the log."""
    with access_log() as log:
        async with served(transport, Notes(), certificate) as connect, await connect() as stream:
            await stream.send_all(data)
            answer = await read_all(stream)
    return answer, log.lines


@over
@table(ACCEPTED)
async def test_handshake_is_accepted(data: bytes, transport: str, certificate: tuple[Path, Path]) -> None:
    with access_log() as log:
        async with served(transport, Notes(), certificate) as connect, await connect() as stream:
            await stream.send_all(data)
            head = await read_until(stream, b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101")
            assert b"\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n" in head.lower()
            await stream.send_all(frame(1, b"hello"))
            assert await read_until(stream, b"hello") == b"\x81\x05hello"
            await stream.send_all(frame(8, b"\x03\xe8"))
            assert await read_all(stream) == b"\x88\x02\x03\xe8"
            assert statistics().refusals == {}
    assert log.lines == ["GET /ws 1.1 101", "GET /ws 1.1 1000"]


@over
@table(REFUSED)
async def test_handshake_is_refused(data: bytes, transport: str, certificate: tuple[Path, Path]) -> None:
    answer, lines = await answer_to(data, transport, certificate)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"sec-websocket-version" not in answer.lower()
    assert len(lines) == 1
    assert lines[0].endswith(" 1.1 400")


@over
@table(OTHER_VERSIONS)
async def test_refusal_of_a_version_names_ours(data: bytes, transport: str, certificate: tuple[Path, Path]) -> None:
    answer, lines = await answer_to(data, transport, certificate)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"\r\nsec-websocket-version: 13\r\n" in answer.lower()
    assert lines == ["GET /ws 1.1 400"]


@over
@table(HTTP)
async def test_request_without_an_upgrade_is_http(data: bytes, transport: str, certificate: tuple[Path, Path]) -> None:
    answer, lines = await answer_to(data, transport, certificate)
    assert answer.startswith(b"HTTP/1.1 200")
    assert len(lines) == 1


@over
async def test_close_frame_behind_a_message_is_answered(transport: str, certificate: tuple[Path, Path]) -> None:
    async with served(transport, Notes(), certificate) as connect:
        for _ in range(10):  # the application, whose client has gone, ends while the answer is written
            async with await connect() as stream:
                await stream.send_all(handshake(UPGRADE, CONNECTION, KEY, VERSION))
                await read_until(stream, b"\r\n\r\n")
                await stream.send_all(frame(1, b"hello") + frame(8, b"\x03\xe8"))
                assert (await read_all(stream)).endswith(b"\x88\x02\x03\xe8")


async def test_refused_handshakes_are_counted(certificate: tuple[Path, Path]) -> None:
    async with served("tcp", Notes(), certificate) as connect:
        for data in (key(b""), version()):
            async with await connect() as stream:
                await stream.send_all(data)
                await read_all(stream)
        assert statistics().refusals == {400: 2}


# -- compression ------------------------------------------------------------------------------------------------------

NAME = "permessage-deflate"
WITHOUT_CONTEXT = f"{NAME}; client_no_context_takeover; server_no_context_takeover"

TAKEN = {
    NAME: "",
    f" {NAME} ;\tclient_no_context_takeover": "",
    f"{NAME}; server_no_context_takeover": "",
    f"{NAME}; client_max_window_bits": "",
    f"{NAME}; client_max_window_bits=8": "",
    f"{NAME}; client_max_window_bits = 15": "",
    f'{NAME}; client_max_window_bits="10"': "",
    f"{NAME}; server_max_window_bits=9": "9",
    f"{NAME}; server_max_window_bits=15; client_max_window_bits": "15",
}

DECLINED = [
    "",
    "x",
    "permessage-deflates",
    "x-webkit-deflate-frame",
    f"{NAME}; x",
    f"{NAME}; x=1",
    f"{NAME}; client_no_context_takeover; client_no_context_takeover",
    f"{NAME}; client_max_window_bits=10; client_max_window_bits=10",
    f"{NAME}; server_no_context_takeover=1",
    f"{NAME}; client_no_context_takeover=true",
    f"{NAME}; server_max_window_bits",
    f"{NAME}; server_max_window_bits=8",  # zlib has no such compressor
    f"{NAME}; server_max_window_bits=7",
    f"{NAME}; server_max_window_bits=16",
    f"{NAME}; server_max_window_bits=09",
    f"{NAME}; server_max_window_bits=+9",
    f"{NAME}; server_max_window_bits=1_0",
    f"{NAME}; server_max_window_bits=",
    f"{NAME}; server_max_window_bits=x",
    f"{NAME}; client_max_window_bits=7",
    f"{NAME}; client_max_window_bits=16",
    f"{NAME}; client_max_window_bits=",
    f'{NAME}; client_max_window_bits="10',
    f"{NAME};",
    f"{NAME};; client_max_window_bits",
    f"{NAME} client_max_window_bits",
]


@pytest.mark.parametrize("offer", TAKEN)
def test_offer_is_taken(offer: str) -> None:
    deflate = BoundedDeflate(1_000)
    agreed = agree(["x", offer], deflate)
    assert agreed is not None
    parameters = agreed.decode().split("; ")
    assert parameters[0] == NAME
    window = [one.partition("=")[2] for one in parameters if one.startswith("server_max_window_bits")]
    assert window == ([TAKEN[offer]] if TAKEN[offer] else [])
    assert deflate.server_max_window_bits == int(TAKEN[offer] or 15)
    assert {"client_no_context_takeover", "server_no_context_takeover"} <= set(parameters)


@pytest.mark.parametrize("offer", DECLINED)
def test_offer_is_declined(offer: str) -> None:
    assert agree([offer], BoundedDeflate(1_000)) is None


@over
@pytest.mark.parametrize(
    ("offer", "taken"), [(WITHOUT_CONTEXT, True), (f"{NAME}; x, {NAME}", True), (DECLINED[4], False)]
)
async def test_offer_over_the_wire(
    offer: str, taken: bool, transport: str, certificate: tuple[Path, Path], settings: Any
) -> None:
    settings.TRIO_CHANNELS = {"WEBSOCKET_COMPRESSION": True}
    async with served(transport, Notes(), certificate) as connect, await connect() as stream:
        offered = b"Sec-WebSocket-Extensions: " + offer.encode()
        await stream.send_all(handshake(UPGRADE, CONNECTION, KEY, VERSION, offered))
        head = await read_until(stream, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        assert (b"sec-websocket-extensions" in head.lower()) is taken
        await stream.send_all(frame(1, b"hello", reserved=0x40) + frame(8, b"\x03\xe8"))
        assert close_code(await read_all(stream)) == (1007 if taken else 1002)  # no deflated data; a reserved bit
