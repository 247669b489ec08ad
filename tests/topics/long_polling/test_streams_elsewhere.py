"""Streams that come to another process than the session's."""

from __future__ import annotations

import pytest
from trio.testing import wait_all_tasks_blocked

from trio_channels._concurrency.drain import DRAIN, Drain
from trio_channels.topics.long_polling import forwarding
from trio_channels.topics.long_polling.session import Session

from ...layers.conftest import redis_server
from ...layers.redis.conftest import url
from .client import StreamClient, end_of, reply_of
from .test_forwarding import JOIN, JOINED, Processes, processes

__all__ = ["processes", "redis_server", "url"]  # fixtures


async def opened(processes: Processes) -> StreamClient:
    """A client whose session is there, and whose next requests come here."""
    client = StreamClient(processes.there)
    await client.open()
    client.application = processes.here
    await client.post_numbered(JOIN)
    return client


def session_of(processes: Processes) -> Session:
    (session,) = processes.there.sessions._sessions.values()
    return session


async def echo(client: StreamClient, number: int) -> None:
    await client.post_numbered(["1", str(number), "room:a", "echo", number])


async def test_messages_reach_a_stream_elsewhere(processes: Processes) -> None:
    client = await opened(processes)
    async with client.streaming() as stream:
        assert await client.next_frame(stream) == JOINED
        for number in range(20):
            await echo(client, number)
            assert (await client.next_frame(stream))[4]["response"] == number
    assert len(processes.here.sessions) == 0


async def test_stream_is_cut_here_and_goes_on_there(processes: Processes) -> None:
    client = await opened(processes)
    for number in range(30):
        await echo(client, number)
    for turn in range(5):
        client.application = (processes.here, processes.there)[turn % 2]
        async with client.streaming() as stream:
            for _ in range(6):
                await client.next_frame(stream)
    assert client.received == 30


async def test_older_stream_elsewhere_does_not_come_back(processes: Processes) -> None:
    client = await opened(processes)
    async with client.streaming() as older:
        assert await client.next_frame(older) == JOINED
        client.application = processes.there
        async with client.streaming() as newer:
            assert await end_of(older) is None
            client.application = processes.here
            await echo(client, 1)
            assert (await client.next_frame(newer))[4]["response"] == 1


async def test_post_elsewhere_that_is_repeated(processes: Processes) -> None:
    client = await opened(processes)
    await client.post_numbered(JOIN, first=1)
    await client.post_numbered(["1", "2", "room:a", "echo", 1])
    async with client.streaming() as stream:
        assert await client.next_frame(stream) == JOINED
        assert (await client.next_frame(stream))[1] == "2"
        await client.post_numbered(JOIN, first=1)
        assert len(session_of(processes)._outgoing) == 0  # the post has acknowledged both


async def test_end_of_a_session_elsewhere(processes: Processes) -> None:
    client = await opened(processes)
    async with client.streaming() as stream:
        assert await client.next_frame(stream) == JOINED
        session_of(processes).end(4003, "as you wish")
        assert await end_of(stream) == (4003, "as you wish")
    assert (await client.ask("DELETE")).status == 200
    while len(processes.there.sessions):
        await wait_all_tasks_blocked()


async def test_process_that_ends_lets_its_streams_go(processes: Processes) -> None:
    client = await opened(processes)
    drain = Drain()
    async with client.streaming() as stream:
        stream.scope["extensions"] = {DRAIN: drain}
        assert await client.next_frame(stream) == JOINED
        while session_of(processes)._poll is None:
            await wait_all_tasks_blocked()
        drain.begin()
        assert await end_of(stream) is None
        assert session_of(processes)._poll is not None  # nothing has come, and the stream did not wait for it
    async with client.streaming(0) as stream:  # one that the server still takes
        stream.scope["extensions"] = {DRAIN: drain}
        assert (await stream.receive_event()).id == "1"
        assert await end_of(stream) is None
    client.application = processes.there
    async with client.streaming() as stream:
        await echo(client, 1)
        assert (await client.next_frame(stream))[4]["response"] == 1


async def test_process_of_the_session_that_has_ended(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await opened(processes)
    monkeypatch.setattr(forwarding, "PATIENCE", 0.1)
    async with client.streaming() as stream:
        assert await client.next_frame(stream) == JOINED
        monkeypatch.setattr(processes.there.sessions, "start_soon", lambda *args: None)
        session_of(processes).vanish("test")
        await end_of(stream)
    async with client.streaming() as stream:
        assert (await reply_of(stream)).status == 410
