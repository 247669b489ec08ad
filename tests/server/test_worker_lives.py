"""D1: bad input of a client ends its connection, and not the worker with all the others."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import h2.events
import pytest
import trio

from .clients import (
    GET,
    HANDSHAKE,
    Application,
    Http2,
    Server,
    frame,
    open_h1,
    open_h2,
    read_all,
    serving_bare,
    serving_ours,
)

Attack = Callable[[Server], Awaitable[object]]


async def send(server: Server, data: bytes) -> bytes:
    async with await server.connect() as stream:
        await stream.send_all(data)
        return await read_all(stream)


async def status_of(server: Server, data: bytes) -> int:
    return int((await send(server, data)).split(b" ", 2)[1])


async def a_byte_behind_the_handshake(server: Server) -> None:
    """hypercorn issue 225."""
    assert await status_of(server, HANDSHAKE % (b"/", b"") + b"x") == 400


async def a_frame_behind_the_handshake(server: Server) -> None:
    """hypercorn issue 225."""
    assert await status_of(server, HANDSHAKE % (b"/", b"") + frame(1, b"x")) == 400


async def a_subprotocol_that_is_no_ascii(server: Server) -> None:
    assert await status_of(server, HANDSHAKE % (b"/", b"Sec-WebSocket-Protocol: \xe9\r\n")) == 400


async def an_extension_that_is_no_ascii(server: Server) -> None:
    assert await status_of(server, HANDSHAKE % (b"/", b"Sec-WebSocket-Extensions: \xe9\r\n")) == 400


async def a_connection_header_that_is_no_ascii(server: Server) -> None:
    data = (HANDSHAKE % (b"/", b"")).replace(b"Connection: Upgrade", b"Connection: upgrade, \xe9")
    assert await status_of(server, data) == 400


async def rubbish_in_the_settings_of_an_upgrade_to_http2(server: Server) -> None:
    await send(
        server,
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: A\r\n\r\n",
    )


async def http2(server: Server, *headers: tuple[bytes, bytes]) -> int:
    async with await Http2.open(server) as client:
        return await client.status(await client.request(*headers))


async def connect_without_a_path(server: Server) -> None:
    assert await http2(server, (b":method", b"CONNECT"), (b":authority", b"localhost")) == 400


async def a_path_that_is_no_ascii(server: Server) -> None:
    assert await http2(server, *GET, (b":path", b"/\xe9")) == 400


async def data_after_an_early_answer(server: Server) -> None:
    """hypercorn issue 329."""
    async with await Http2.open(server) as client:
        number = await client.request(*GET, (b":path", b"/"), end=False)
        await client.until(h2.events.StreamEnded, number)
        client.h2.send_data(number, b"x", end_stream=True)
        other = await client.request(*GET, (b":path", b"/"))
        assert await client.status(other) == 200


async def priorities_of_a_thousand_streams(server: Server) -> None:
    async with await Http2.open(server) as client:
        for number in range(1001):
            client.h2.prioritize(2 * number + 1)
        await client.flush()
        client.h2.ping(b"12345678")
        await client.flush()
        assert await client.until(h2.events.PingAckReceived)


ATTACKS: list[Attack] = [
    a_byte_behind_the_handshake,
    a_frame_behind_the_handshake,
    a_subprotocol_that_is_no_ascii,
    an_extension_that_is_no_ascii,
    a_connection_header_that_is_no_ascii,
    rubbish_in_the_settings_of_an_upgrade_to_http2,
    connect_without_a_path,
    a_path_that_is_no_ascii,
    data_after_an_early_answer,
    priorities_of_a_thousand_streams,
]


@pytest.mark.parametrize("attack", ATTACKS)
async def test_one_client_ends_bare_hypercorn(attack: Attack) -> None:
    """If one of these fails, hypercorn has mended the defect, and our code for it can go."""
    async with serving_bare(Application()) as server, trio.open_nursery() as nursery:

        async def try_it() -> None:
            # The client's view of the attack does not matter here.
            with contextlib.suppress(Exception):
                await attack(server)

        nursery.start_soon(try_it)
        await server.died.wait()
        nursery.cancel_scope.cancel()
    assert server.error is not None


@pytest.mark.parametrize("attack", ATTACKS)
async def test_one_client_ends_nothing_but_its_connection(attack: Attack, caplog: pytest.LogCaptureFixture) -> None:
    async with serving_ours(Application()) as server, server.served_meanwhile():
        await attack(server)
    assert server.error is None
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


FRAMES: dict[str, tuple[bytes, int]] = {
    "a reserved opcode": (frame(3), 1002),
    "a reserved control opcode": (frame(11), 1002),
    "a reserved bit": (frame(1, b"x", reserved=0x20), 1002),
    "the bit of compression that was not agreed": (frame(1, b"x", reserved=0x40), 1002),
    "no mask": (b"\x81\x01x", 1002),
    "a ping in parts": (frame(9, b"x", fin=False), 1002),
    "a ping that is too long": (frame(9, b"x" * 126), 1002),
    "a continuation of nothing": (frame(0, b"x"), 1002),
    "a message within a message": (frame(1, b"x", fin=False) + frame(1, b"y"), 1002),
    "a close code out of range": (frame(8, b"\x00\x01"), 1002),
    "a close code that must not be sent": (frame(8, b"\x03\xee"), 1002),
    "half a close code": (frame(8, b"\x03"), 1002),
    "a length in two bytes that fits in one": (frame(1, b"x", size=b"\xfe\x00\x01"), 1002),
    "a length in eight bytes that fits in two": (frame(1, b"x", size=b"\xff" + bytes(7) + b"\x01"), 1002),
    "a negative length": (frame(1, b"", size=b"\xff\x80" + bytes(7)), 1002),
    "text that is no UTF-8": (frame(1, b"\xff"), 1007),
    "text that ends within a character": (frame(1, b"\xc3"), 1007),
    "a close reason that is no UTF-8": (frame(8, b"\x03\xe8\xff"), 1007),
    "a frame beyond the limit": (frame(2, b"", size=b"\xff" + (2**20 + 1).to_bytes(8, "big")), 1009),
}


@pytest.mark.parametrize(("data", "code"), FRAMES.values(), ids=list(FRAMES))
@pytest.mark.parametrize("connect", [open_h1, open_h2])
async def test_bad_frame_gets_its_code_and_ends_its_connection(
    connect: Callable[[Server], Awaitable[Any]], data: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    application = Application()
    async with serving_ours(application) as server, server.served_meanwhile():
        client = await connect(server)
        await client.send(data)
        answer = await client.rest()
        await client.aclose()
        assert int.from_bytes(answer[2:4], "big") == code
        assert answer[0] == 0x88
        await application.over.wait()
        assert application.ended[0]["code"] == code
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_bare_hypercorn_answers_text_that_is_no_utf8_with_silence() -> None:
    """Defect D16 of hypercorn."""
    async with serving_bare(Application()) as server:
        client = await open_h1(server)
        await client.send(frame(1, b"\xff"))
        assert await client.rest() == b""
        await client.aclose()
