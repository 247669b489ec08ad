"""A ping is written at once, or in a task if it would have to wait; it interrupts no other write."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import Mock

import pytest
import trio
import trio.testing

from trio_channels.server.connection import ServerConnection


@pytest.fixture
async def pair() -> AsyncIterator[tuple[ServerConnection, trio.SocketStream]]:
    """A connection of a server, without its tasks, and its client."""
    ours, theirs = socket.socketpair()
    streams = [trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in (ours, theirs)]
    limits = Mock(write_timeout=10)
    connection = ServerConnection(Mock(limits=limits, state={}), streams[0], "", None, 1)
    connection.tasks = Mock()
    async with streams[0], streams[1]:
        yield connection, streams[1]


Pair = tuple[ServerConnection, trio.SocketStream]


async def test_data_is_written_at_once(pair: Pair) -> None:
    connection, client = pair
    connection.write_soon(b"ab")
    connection.tasks.spawn.assert_not_called()  # type: ignore[attr-defined]
    assert await client.receive_some() == b"ab"


async def test_data_waits_in_a_task_for_another_write(pair: Pair) -> None:
    connection, client = pair
    whole = b"x" * 10_000_000
    got = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.write, whole)
        await trio.testing.wait_all_tasks_blocked()
        assert not connection.can_write_now
        connection.write_soon(b"ab")
        ((write, data), _) = connection.tasks.spawn.call_args  # type: ignore[attr-defined]
        nursery.start_soon(write, data)
        while len(got) < len(whole) + 2:
            got += await client.receive_some()
    assert got == whole + b"ab"


async def test_full_socket_is_written_to_in_a_task(pair: Pair) -> None:
    connection, _ = pair
    while connection._transport.send_nowait(b"x" * 100_000):
        pass
    connection.write_soon(b"ab")
    connection.tasks.spawn.assert_called_once_with(connection.write, b"ab")  # type: ignore[attr-defined]


async def test_client_that_has_gone_is_noticed(pair: Pair) -> None:
    connection, client = pair
    await client.aclose()
    connection.write_soon(b"ab")
    assert connection._closing
    connection.tasks.spawn.assert_not_called()  # type: ignore[attr-defined]


async def test_half_written_data_ends_the_connection(pair: Pair, monkeypatch: Any) -> None:
    connection, client = pair
    monkeypatch.setattr(connection, "_transport", Mock(send_nowait=Mock(return_value=1)))
    connection.write_soon(b"ab")
    assert connection._closing
    connection._transport.abort.assert_called_once()  # type: ignore[attr-defined]
    await client.aclose()
