"""Events too rare to occur by chance: streams that break while closing, repeated marks, quiet outages."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest
import trio
import trio.testing

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers.redis import session
from trio_channels.layers.redis.connection import ConnectionLost, RedisConnection, open_connection
from trio_channels.layers.redis.hosts import Host, parse_host
from trio_channels.layers.redis.work_source import RedisWorkSource, WorkContext

from .test_corners import link_to
from .test_rows import Clocks
from .world import make_layers, until

HOST = Host(("127.0.0.1", 6379))


async def test_server_that_refuses_the_scripts_is_not_available() -> None:
    refused = False

    def answer(command: list[bytes], connection: int) -> bytes:
        return b"-NOPERM no scripts\r\n" if refused and command[0] == b"SCRIPT" else b"+OK\r\n"

    async with link_to(answer) as pipeline:
        refused = True
        await trio.aclose_forcefully(pipeline._connection._stream)  # type: ignore[union-attr]
        await until(lambda: "refuses a script or a transaction: NOPERM no scripts" in repr(pipeline))


async def test_nobody_is_connected_to_who_has_no_address() -> None:
    with pytest.raises(ConnectionLost, match=r"the address of the .* is not known yet"):
        await open_connection(Host(None))


async def test_connection_that_was_closed_on_this_side_is_lost() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    connection = await open_connection(Host(("127.0.0.1", listener.socket.getsockname()[1])))
    await connection.aclose()
    with pytest.raises(ConnectionLost, match="closed on this side"):
        await connection.receive()
    await listener.aclose()


async def test_spurious_wake_up_of_a_connection_waits_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, read, vain = await open_connection(parse_host(url)), os.read, [True, True]

    def not_yet(file: int, size: int) -> bytes:
        if file == connection._socket.fileno() and vain:  # type: ignore[union-attr]
            vain.pop()
            raise BlockingIOError
        return read(file, size)

    monkeypatch.setattr("trio_channels.layers.redis.connection.read_socket", not_yet)
    assert await connection.exchange(("PING",)) == [b"PONG"]
    assert vain == []
    await connection.aclose()


class Encrypted(trio.abc.Stream):
    """A stream that cannot be closed in one direction only, as with TLS."""

    closed = False

    async def send_all(self, data: Any) -> None:
        """Accept the data."""

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the end of the stream."""
        return b""

    async def aclose(self) -> None:
        """Close."""
        self.closed = True
        await trio.lowlevel.checkpoint()


class Broken(Encrypted, trio.abc.HalfCloseableStream):
    """A stream whose other side has gone."""

    async def send_eof(self) -> None:
        """Raise an error, as the other side has gone."""
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError


@pytest.mark.parametrize("kind", [Encrypted, Broken])
async def test_connection_that_cannot_say_farewell_is_closed(kind: type[Encrypted]) -> None:
    stream = kind()
    connection = RedisConnection(HOST, stream)
    await connection.close_gracefully(5)
    assert stream.closed
    assert repr(connection) == f"<RedisConnection to {HOST}>"


async def test_mark_that_has_been_passed_before_is_no_gap() -> None:
    clocks = Clocks()
    clocks.delivery.deliver(b"1-0", [b"l", b"3"])
    clocks.delivery.deliver(b"2-0", [b"l", b"3"])
    assert clocks.delivery.gaps == 1


async def test_named_channel_that_is_received_on_keeps_its_connection(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "IDLE_NAMED_CHANNELS", 0)
    [layer] = make_layers(url)
    got: list[int] = []

    async def receive() -> None:
        got.append((await layer.receive("waited-for"))["n"])

    async with layer, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await until(lambda: "waited-for" in layer._session()._named and layer._session()._named["waited-for"].in_use)
        await layer.send("other", {"type": "x"})
        await layer.receive("other")
        assert "waited-for" in layer._session()._named
        await layer.send("waited-for", {"type": "x", "n": 1})
    assert got == [1]


class AwayThenBack:
    """A pipeline that fails two calls, and then answers that another worker has two messages."""

    def __init__(self) -> None:
        self.calls = 0

    async def call(self, *arguments: Any) -> list[bytes]:
        """Answer WORK_RENEW."""
        self.calls += 1
        await trio.lowlevel.checkpoint()
        if self.calls < 3:
            raise ChannelLayerUnavailable("away")
        return [b"1-0", b"2-0"]


async def test_worker_logs_a_failed_renewal_once_and_tries_again(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_channels")
    pipeline: Any = AwayThenBack()
    nothing: Any = None
    context = WorkContext("jobs", "stream", pipeline, nothing, 60.0, 60.0, lambda name: nothing, nothing, "p")
    source = RedisWorkSource(context, 5, 3.0)
    source._in_hand["1-0"] = True  # 2-0 was settled while WORK_RENEW was under way
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.renew)
        await trio.sleep(3.5)  # the source renews each second
        nursery.cancel_scope.cancel()
    assert not source._in_hand["1-0"]
    assert caplog.text.count("cannot reach Redis") == 1
    assert caplog.text.count("another worker has taken over message") == 1
