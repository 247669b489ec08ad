"""Requests that only HTTP/2 has: odd methods, priorities, data and resets that come too late."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h2.events
import pytest
import trio
import trio.testing
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, BufferCompleteError
from priority import MissingStreamError

from trio_channels.server.http2 import Http2 as Http2Protocol
from trio_channels.server.http2.sending import Buffer

from ..clients import GET, Application, Http2, Server, serving_ours

ROOT = (b":path", b"/")


@asynccontextmanager
async def connected(application: Any = None, **options: Any) -> AsyncIterator[tuple[Server, Http2]]:
    async with serving_ours(application or Application(), **options) as server, await Http2.open(server) as client:
        yield server, client


async def still_answers(client: Http2) -> None:
    """The connection still answers a request."""
    assert await client.status(await client.request(*GET, ROOT)) == 200


async def test_tunnel_is_not_built() -> None:
    async with connected() as (_, client):
        await client.until(h2.events.RemoteSettingsChanged)
        tunnel = ((b":method", b"CONNECT"), (b":protocol", b"connect-udp"), *GET[1:], ROOT)
        assert await client.status(await client.request(*tunnel)) == 501
        await still_answers(client)


async def test_request_whose_priority_was_announced_is_answered() -> None:
    async with connected() as (_, client):
        client.h2.prioritize(1, weight=3)
        await still_answers(client)


async def test_request_after_a_thousand_priorities_is_answered() -> None:
    async with connected() as (_, client):
        for number in range(1, 1_001):
            client.h2.prioritize(2 * number + 1)
        await still_answers(client)


async def test_data_of_a_stream_that_was_forgotten_is_no_error() -> None:
    async with connected() as (_, client):
        number = await client.request(*GET, ROOT, end=False)
        await client.until(h2.events.StreamEnded, number)
        client.h2.send_data(number, b"x")
        client.h2.reset_stream(number)
        await client.flush()
        await still_answers(client)


async def test_refusal_of_a_stream_that_was_reset_at_once_is_no_error() -> None:
    async with connected() as (_, client):
        number = client.h2.get_next_available_stream_id()
        client.h2.send_headers(number, [(b":method", b"CONNECT"), (b":authority", b"localhost")], end_stream=False)
        client.h2.reset_stream(number)
        await client.flush()
        await still_answers(client)


class Endless(Application):
    """Sends more than any window holds."""

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/endless":
            await super().http(scope, receive, send)
            return
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        except OSError:
            self.over.set()


@pytest.mark.parametrize("leaves", [True, False], ids=["that leaves", "that resets the stream"])
async def test_application_waiting_for_a_window_waits_for_no_client(
    leaves: bool, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.TRIO_CHANNELS = {"WRITE_TIMEOUT": 1_000}
    application = Endless()
    async with connected(application) as (server, client):
        number = await client.request(*GET, (b":path", b"/endless"))
        assert await client.status(number) == 200
        await trio.testing.wait_all_tasks_blocked()
        if leaves:
            await client.stream.aclose()
        else:
            client.h2.reset_stream(number)
            await client.flush()
        await application.over.wait()
        if not leaves:
            await still_answers(client)
        await server.still_serves()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_streams_cut_for_a_closed_window_leave_nothing(
    clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Http2Protocol] = []
    initiate = Http2Protocol.initiate

    async def noted(protocol: Http2Protocol, *arguments: Any) -> None:
        made.append(protocol)
        await initiate(protocol, *arguments)

    monkeypatch.setattr(Http2Protocol, "initiate", noted)
    async with connected(Endless()) as (_, client):
        number = await client.request(*GET, (b":path", b"/endless"))
        assert await client.until(h2.events.StreamReset, number)
        await still_answers(client)
        await trio.testing.wait_all_tasks_blocked()
        assert number not in made[0].streams
        assert number not in made[0].stream_buffers
        with pytest.raises(MissingStreamError):
            made[0].priority.unblock(number)


async def test_buffer_that_is_complete_takes_nothing_more() -> None:
    buffer = Buffer(lambda wait: wait())
    await buffer.push(b"all")
    buffer.set_complete()
    with pytest.raises(BufferCompleteError):
        await buffer.push(b"more")
    assert await buffer.pop(10) == b"all"


async def test_all_who_wait_for_one_window_go_on_when_it_opens() -> None:
    buffer = Buffer(lambda wait: wait())
    async with trio.open_nursery() as nursery:
        for _ in range(2):  # an application, and the server with a close frame
            nursery.start_soon(buffer.push, bytes(BUFFER_HIGH_WATER))
            await trio.testing.wait_all_tasks_blocked()
        await buffer.pop(2 * BUFFER_HIGH_WATER)
