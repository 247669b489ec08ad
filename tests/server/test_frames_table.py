"""The cases of :mod:`frame_cases`, over HTTP/1.1 and TLS, whole and byte by byte."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest

from .clients import HANDSHAKE, read_all, read_until
from .frame_cases import (
    BINARY,
    CLOSES,
    CONTROL,
    FRAGMENTS,
    LARGE,
    MESSAGES,
    PAYLOADS,
    RESERVED,
    TEXT,
    UTF_8,
    Case,
    answered,
    compressed_parts,
    deflated,
    frame,
    parts,
)
from .tables import TRANSPORTS, Connect, Notes, served

Certificate = tuple[Path, Path]

SECTIONS = {
    "messages": MESSAGES,
    "control frames": CONTROL,
    "reserved": RESERVED,
    "fragments": FRAGMENTS,
    "UTF-8": UTF_8,
    "closes": CLOSES,
    "large": LARGE,
}

#: A longer input is not sent byte by byte.
_MOST_BYTES = 200

over = pytest.mark.parametrize("transport", TRANSPORTS)


async def open_websocket(connect: Connect, offer: bytes = b"") -> Any:
    stream = await connect()
    await stream.send_all(HANDSHAKE % (b"/", offer))
    assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return stream


async def read_exactly(stream: Any, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await stream.receive_some(size - len(data))):
        data += more
    return data


async def outcome(connect: Connect, case: Case, step: int) -> tuple[bytes, int | None]:
    """The answer to a case and, if the server closes, its code; otherwise a ping is answered."""
    async with await open_websocket(connect) as stream:
        for start in range(0, len(case.data), step):
            await stream.send_all(case.data[start : start + step])
        answer = await read_exactly(stream, len(case.answer))
        if case.code is not None:
            closing = await read_all(stream)
            assert closing[:1] == b"\x88", closing[:100]
            assert len(closing) == 2 + closing[1]
            return answer, int.from_bytes(closing[2:4], "big") if closing[1] else 1005
        await stream.send_all(frame(9, b"alive?") + frame(8, b"\x03\xe8"))
        assert await read_all(stream) == answered(10, b"alive?") + b"\x88\x02\x03\xe8"
        return answer, None


@pytest.mark.time_limit(180)  # hundreds of cases: they take seconds where nothing else runs
@over
@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("section", SECTIONS)
async def test_frames(section: str, bytewise: bool, transport: str, certificate: Certificate) -> None:
    cases = {name: case for name, case in SECTIONS[section].items() if not bytewise or len(case.data) <= _MOST_BYTES}
    wrong = {}
    async with served(transport, Notes(), certificate) as connect:
        for name, case in cases.items():
            got = await outcome(connect, case, 1 if bytewise else 2**24)
            if got != (case.answer, case.code):
                wrong[name] = (got[0][:50], got[1])
    assert wrong == {}


def test_every_section_has_its_cases() -> None:
    counts = {"messages": 18, "control frames": 12, "reserved": 62, "fragments": 18, "UTF-8": 266, "closes": 38}
    assert {name: len(cases) for name, cases in SECTIONS.items()} == counts | {"large": 30}  # the docs have the sum


@over
@pytest.mark.parametrize("count", [1, 2, 64])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_compressed_messages(
    opcode: int, count: int, transport: str, certificate: Certificate, settings: Any
) -> None:
    settings.TRIO_CHANNELS = {"WEBSOCKET_COMPRESSION": True}
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n"
    async with served(transport, Notes(), certificate) as connect, await open_websocket(connect, offer) as stream:
        for name, payload in PAYLOADS.items():
            if opcode == TEXT and "noise" in name:
                continue
            for level in (0, 1, 9):
                await stream.send_all(compressed_parts(opcode, deflated(payload, level), count))
                assert (name, await read_compressed(stream, opcode)) == (name, payload)
        await stream.send_all(frame(TEXT, b"plain") + parts(TEXT, b"plain", 3))
        for _ in range(2):
            assert await read_compressed(stream, TEXT) == b"plain"


async def read_compressed(stream: Any, opcode: int) -> bytes:
    """The payload of one frame with the bit of a compressed message."""
    first, size = await read_exactly(stream, 2)
    assert first == 0xC0 | opcode
    if size > 125:
        size = int.from_bytes(await read_exactly(stream, 2 if size == 126 else 8), "big")
    data = await read_exactly(stream, size)
    return zlib.decompressobj(wbits=-15).decompress(data + b"\0\0\xff\xff")


@over
async def test_1009_says_which_message_is_too_long(transport: str, certificate: Certificate, settings: Any) -> None:
    settings.TRIO_CHANNELS = {"WEBSOCKET_COMPRESSION": True, "MAX_MESSAGE_SIZE": 1_000}
    offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
    said = {
        frame(TEXT, b"a" * 1_001): b"got a frame of 1001",
        frame(TEXT, b"a" * 600, fin=False) + frame(0, b"a" * 600): b"got 1200 or more",
        frame(TEXT, deflated(b"a" * 1_001), reserved=0x40): b"got one that inflates to more",
    }
    async with served(transport, Notes(), certificate) as connect:
        for data, reason in said.items():
            async with await open_websocket(connect, offer) as stream:
                await stream.send_all(data)
                closing = await read_all(stream)
                assert closing[2:] == b"\x03\xf1" + b"expected messages of at most 1000 bytes, " + reason
