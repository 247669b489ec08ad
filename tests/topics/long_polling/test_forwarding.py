"""Requests that come to another process than the session's."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_channels._connection.lasting import Lasting, lasting
from trio_channels.exceptions import ChannelFull, ChannelLayerUnavailable
from trio_channels.layers import channel_layers
from trio_channels.layers.base import Gap
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.topics import LongPolling, Topic, TopicSocket, event
from trio_channels.topics.long_polling import forwarding
from trio_channels.topics.long_polling.forwarding import Request, forward
from trio_channels.topics.long_polling.sessions import Place, Sessions, place_of

from ...layers.conftest import redis_server
from ...layers.redis.conftest import url
from .client import LongPollClient, routed

__all__ = ["redis_server", "url"]  # fixtures

JOIN = ["1", "1", "room:a", "phx_join", {}]
JOINED = ["1", "1", "room:a", "phx_reply", {"status": "ok", "response": {}}]


class Room(Topic):
    pattern = "room:<slug:name>"

    @event("echo")
    async def echo(self, payload: Any) -> Any:
        return payload


class Socket(TopicSocket):
    topics = [Room]


class OfProcess(LongPolling):
    """The application in one process of several."""

    def __init__(self, process: Lasting) -> None:
        super().__init__(routed(Socket.as_asgi()))
        self.sessions = Sessions(process)

    def _sessions(self) -> Sessions:
        return self.sessions


class Processes:
    """Two, which share a Redis."""

    def __init__(self, one: Lasting, two: Lasting, layer: RedisStreamsChannelLayer) -> None:
        self.here, self.there, self.layer = OfProcess(one), OfProcess(two), layer

    async def opened(self) -> LongPollClient:
        """A client whose session is there, and whose next requests come here."""
        client = LongPollClient(self.there)
        await client.open()
        client.application = self.here
        return client


@pytest.fixture
async def processes(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Processes]:
    layer = RedisStreamsChannelLayer(hosts=[url])
    monkeypatch.setitem(channel_layers.backends, "default", layer)
    async with layer, lasting() as one, lasting() as two:
        yield Processes(one, two, layer)


async def test_requests_reach_the_session_elsewhere(processes: Processes) -> None:
    client = await processes.opened()
    assert (await client.post(JOIN)).status == 200
    assert await client.receive() == JOINED
    async with client.request("GET") as poll:
        await poll.send_request()
        client.application = processes.there
        (session,) = processes.there.sessions._sessions.values()
        while session._poll is None:
            await trio.testing.wait_all_tasks_blocked()
        await client.post(["1", "2", "room:a", "echo", {"n": 1}])
        body = json.loads((await poll.get_response())["body"])
        assert (body["status"], json.loads(body["messages"][0])[4]["response"]) == (200, {"n": 1})
    assert len(processes.here.sessions) == 0


async def test_session_elsewhere_that_has_ended(processes: Processes) -> None:
    client = await processes.opened()
    (session,) = processes.there.sessions._sessions.values()
    session.vanish("test")
    await wait_all_tasks_blocked()
    assert (await client.poll()).status == 410
    assert (await client.post(JOIN)).status == 410


async def test_post_elsewhere_that_is_malformed(processes: Processes) -> None:
    client = await processes.opened()
    assert (await client.post("?")).status == 400


async def test_process_that_has_ended(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "PATIENCE", 0.1)
    client = await processes.opened()
    monkeypatch.setattr(processes.there.sessions, "start_soon", lambda *args: None)
    assert (await client.poll()).status == 410


async def test_token_names_the_channel_of_its_process(processes: Processes) -> None:
    client = await processes.opened()
    place = place_of(str(client.token))
    assert place is not None
    assert place.channel == processes.there.sessions.channel != ""
    assert processes.there.sessions.has(place.session)
    await processes.opened()
    assert processes.there.sessions.channel == place.channel


# -- failures of the layer --------------------------------------------------------------------------------------------


class Broken:
    """A layer whose calls fail."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def open_mailbox(self, **options: Any) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [ChannelLayerUnavailable("away"), ChannelFull("full")])
async def test_layer_that_is_away(error: Exception) -> None:
    layer: Any = Broken(error)
    assert (await forward(layer, "longpoll.abc!def", Request("poll", "x", None))).status == 410


async def test_layer_that_is_away_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(channel_layers.backends, "default", Broken(ChannelLayerUnavailable("away")))  # type: ignore[arg-type]

    class Lonely(Socket):
        channel_layer_alias = "none"

    async with lasting() as process:
        application = OfProcess(process)
        application.websocket = routed(Lonely.as_asgi())
        client = LongPollClient(application)
        await client.open()
        assert place_of(str(client.token)) == Place("", next(iter(application.sessions._sessions)))
        assert (await client.post(JOIN)).status == 200


async def test_layer_that_fails_later_is_heard_again(processes: Processes) -> None:
    client = await processes.opened()
    sessions = processes.there.sessions
    first = sessions.channel
    (mailbox,) = processes.layer.mailboxes_here(channel=first)
    mailbox.on_failure()  # type: ignore[misc]
    while sessions.channel:
        await wait_all_tasks_blocked()
    client.application = processes.there
    assert (await client.post(JOIN)).status == 200
    await LongPollClient(processes.there).open()
    assert sessions.channel not in ("", first)


async def test_requests_behind_a_gap_are_answered(processes: Processes) -> None:
    client = await processes.opened()
    (mailbox,) = processes.layer.mailboxes_here(channel=processes.there.sessions.channel)
    mailbox._add_hole(1, "overflow")
    assert (await client.post(JOIN)).status == 200
    mailbox.put_gap(Gap(1, "overflow"))
    assert (await client.receive()) == JOINED


async def test_answer_that_cannot_be_sent(processes: Processes, caplog: pytest.LogCaptureFixture) -> None:
    layer, sessions = Answers(ChannelLayerUnavailable("away")), processes.there.sessions
    caplog.set_level(logging.DEBUG, "trio_channels.topics")
    await forwarding._answer(layer, sessions, {"request": list(Request("poll", "x", None)), "reply_to": "a!b"})
    await forwarding._answer(layer, sessions, {"malformed": 1})
    assert [record.levelname for record in caplog.records] == ["DEBUG", "ERROR"]


class Answers:
    """A layer that cannot send."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def send(self, channel: str, message: Any) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("channel", "elsewhere"),
    [
        ("longpoll.one!abc", True),
        ("longpoll.own!abc", False),
        ("longpoll!abc", False),  # of the in-memory layer
        ("", False),
    ],
)
def test_only_channels_of_other_processes_get_requests(channel: str, elsewhere: bool) -> None:
    assert forwarding.reaches_other_process(channel, "longpoll.own!abc") is elsewhere
