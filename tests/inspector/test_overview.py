"""The overview, over both layers: connections, groups, and processes that do not answer."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio

from trio_channels import _orders
from trio_channels._connection.registry import connections_of
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.inspector import Question, asking, overview, report
from trio_channels.inspector.answering import ASK
from trio_channels.inspector.asking import Overview
from trio_channels.inspector.queues import channels_of_application
from trio_channels.layers import InMemoryChannelLayer, channel_layers
from trio_channels.layers.base import ChannelLayer
from trio_channels.layers.names import ORDERS
from trio_channels.layers.presence.interface import PresenceMethods
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.routing import ChannelNameRouter, ProtocolTypeRouter
from trio_channels.testing import WebsocketCommunicator
from trio_channels.websocket import WebSocket, websocket
from trio_channels.worker import Worker

from ..event_stream.common import BOTH, kept, visit
from ..ports import free_port
from .conftest import Served, another_run


class User:
    pk = 7

    def get_username(self) -> str:
        return "ada"


class Stranger:
    pk = 8


class Room(AsyncWebsocketConsumer):
    groups = ("room",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(self.channel_name)


def client(path: str = "/room/?token=secret&page=2", user: Any = None) -> WebsocketCommunicator:
    ws = WebsocketCommunicator(Room.as_asgi(), path)
    ws.scope["user"] = user
    ws.scope["url_pattern"] = "room/"
    ws.scope["client"] = ("203.0.113.9", 50412)
    return ws


def pids(seen: Overview) -> list[int]:
    return [one.process.pid for one in seen.reports]


async def test_connection_is_described(served: Served) -> None:
    async with served(), client(user=User()) as ws:
        await ws.connect()
        await ws.send_to(text_data="name")
        name = await ws.receive_from()
        seen = await overview()
        ((process, row),) = seen.connections
        assert (process.pid, process.role) == (os.getpid(), "server")
        assert (row.kind, row.path, row.route) == ("websocket", "/room/?token=***&page=2", "room/")
        assert (row.user, row.username, row.client) == ("7", "ada", "203.0.113.9:50412")
        assert (row.channel, row.layer, row.groups, row.more_groups) == (name, "default", ["room"], 0)
        assert (row.waiting, row.handling, row.ending) == (0, "", False)
        assert row.age >= 0
        assert seen.found == 1
        assert seen.groups == [("default", "room", 1, 1)]
        assert seen.silent == []
        assert seen.reports[0].figures["connections"] == {"websocket": 1}


async def test_hostile_query_hides_nothing(served: Served) -> None:
    async with served(), client("/room/?" + "a=?" * 5_000) as hostile, client() as other:
        await hostile.connect()
        await other.connect()
        seen = await overview()
        assert [row.path for _, row in seen.connections] == ["/room/?a=***", "/room/?token=***&page=2"]
        assert not seen.silent


async def test_in_memory_layer_says_that_it_is_alone(served: Served) -> None:
    async with served() as layer:
        seen = await overview()
        assert seen.shared is isinstance(layer, RedisStreamsChannelLayer)
        assert ("only this one" in seen.problem) is not seen.shared


@pytest.mark.parametrize(
    ("question", "found"),
    [
        (Question(find="GARDEN"), 1),
        (Question(find="203.0.113.9"), 2),
        (Question(find="secret"), 0),
        (Question(find="ada"), 2),
        (Question(group="room"), 2),
        (Question(group="room", find="garden"), 1),
        (Question(group="kitchen"), 0),
    ],
)
async def test_connections_are_found(
    default_layer: Callable[[ChannelLayer], ChannelLayer], question: Question, found: int
) -> None:
    layer = default_layer(InMemoryChannelLayer())
    async with layer, _orders.orders(), client("/garden/?token=secret", User()) as one, client(user=User()) as other:
        await one.connect()
        await other.connect()
        seen = await overview(question)
        assert (seen.found, len(seen.connections)) == (found, found)


async def test_list_is_as_long_as_asked(served: Served) -> None:
    async with served(), client() as one, client() as other:
        await one.connect()
        await other.connect()
        seen = await overview(Question(rows=1))
        assert (seen.found, len(seen.connections)) == (2, 1)


async def test_other_run_answers(served: Served) -> None:
    async with served() as layer, client() as ws, another_run(layer, "worker"):
        await ws.connect()
        seen = await overview()
        assert sorted(one.process.role for one in seen.reports) == ["server", "worker"]
        assert len({one.process.run for one in seen.reports}) == 2
        assert [one.found for one in seen.reports if one.process.role == "worker"] == [0]
        assert seen.silent == []
    assert seen.found == 1


async def test_run_that_has_ended_is_not_known(served: Served) -> None:
    async with served() as layer:
        async with another_run(layer):
            assert len((await overview()).reports) == 2
        seen = await overview()
        assert (len(seen.reports), seen.silent) == (1, [])


META = {"run": "zzz", "pid": 4711, "host": "web1", "role": "server", "started": 1.5}


async def test_silent_process_is_shown_and_remembered(
    served: Served, deadline: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served() as layer:
        deadline(0.1)
        async with layer.track(ORDERS, "zzz", META):
            silent = (await overview()).silent[-1]  # on a busy machine this process may be another one
            assert (silent.process.pid, silent.process.host, silent.lost) == (4711, "web1", False)
        deadline(60.0)
        (silent,) = (await overview()).silent
        assert (silent.process.pid, silent.lost) == (4711, True)
        monkeypatch.setattr(asking, "MEMORY", 0.0)
        assert (await overview()).silent == []


async def test_figures_do_not_count_the_inspector(served: Served) -> None:
    async with served() as layer:
        seen = layer.statistics()
        assert (seen.tracked, seen.groups, seen.channels) == (0, 0, 0)


async def test_process_without_the_app_is_not_known(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_orders, "introduction", None)
    async with served() as layer:
        assert await layer.presence(ORDERS) == {}


async def test_without_a_layer_it_is_this_process(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.CHANNEL_LAYERS = {}
    monkeypatch.setattr(channel_layers, "backends", {})
    async with _orders.orders():
        seen = await overview(channels=["jobs"])
    assert (pids(seen), seen.shared, seen.queues) == ([os.getpid()], False, [])
    assert "no channel layer" in seen.problem


async def test_layer_that_is_away_leaves_this_process(
    default_layer: Callable[[ChannelLayer], ChannelLayer], caplog: pytest.LogCaptureFixture
) -> None:
    away = RedisStreamsChannelLayer(hosts=[f"redis://:secret@127.0.0.1:{free_port()}"], timeout=0.2)
    async with default_layer(away).open_patiently(), _orders.orders():
        seen = await overview(channels=["jobs"])
    assert pids(seen) == [os.getpid()]
    assert "is away" in seen.problem
    assert [(queue.backlog, queue.dead) for queue in seen.queues] == [(None, None)]
    assert "the other processes cannot be asked" in caplog.text
    assert "secret" not in caplog.text


class WithoutPresence(InMemoryChannelLayer):
    """A layer of somebody else."""

    track_channel = PresenceMethods.track_channel
    presence = PresenceMethods.presence


async def test_layer_without_presence_knows_who_answers(
    default_layer: Callable[[ChannelLayer], ChannelLayer], deadline: Callable[[float], None]
) -> None:
    deadline(0.1)
    async with default_layer(WithoutPresence()), _orders.orders():
        while not (seen := await overview()).reports:
            pass  # a busy machine was late
    assert (pids(seen), seen.silent) == ([os.getpid()], [])


# -- hostile and odd ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [{}, {"reply": "x", "question": {"rows": "many"}}, {"reply": 3, "question": {}}])
async def test_malformed_question_is_logged(
    content: dict[str, Any], served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as layer:
        await layer.group_send(ORDERS, {"type": ASK, **content})
        assert len((await overview()).reports) == 1  # it has been delivered, and the process still answers
    assert ["malformed" in record.message for record in caplog.records] == [True]


async def test_malformed_answer_and_introduction_are_ignored(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    def answer(message: dict[str, Any], layer: ChannelLayer, nursery: trio.Nursery) -> None:
        nursery.start_soon(answer_twice, message, layer, nursery)

    async def answer_twice(message: dict[str, Any], layer: ChannelLayer, nursery: trio.Nursery) -> None:
        await layer.send(message["reply"], {"type": "x", "report": {"process": 3}})
        genuine(message, layer, nursery)

    genuine = _orders.functions[ASK]
    _orders.functions[ASK] = answer
    async with served() as layer, layer.track(ORDERS, "other", {"pid": "none"}):
        seen = await overview()
    assert (pids(seen), seen.silent) == ([os.getpid()], [])
    assert "introduced itself in an unknown way" in caplog.text
    assert "the answer of a process is malformed" in caplog.text


async def test_unknown_order_is_ignored(served: Served) -> None:
    async with served() as layer:
        await layer.group_send(ORDERS, {"type": "trio_channels.of_a_later_version"})
        assert len((await overview()).reports) == 1


async def test_failing_report_does_not_end_the_server(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    deadline: Callable[[float], None],
) -> None:
    async def fail(question: Question) -> None:
        raise RuntimeError("a defect")

    deadline(0.1)
    async with served():
        with monkeypatch.context() as patch:
            patch.setattr("trio_channels.inspector.answering.report", fail)
            assert [one.process.pid for one in (await overview()).silent] == [os.getpid()]
        deadline(60.0)
        assert (await overview()).silent == []
    assert "could not be answered" in caplog.text


async def test_asker_that_has_gone_is_no_error(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "trio_channels.inspector")
    async with served() as layer:
        await layer.group_send(ORDERS, {"type": ASK, "reply": "bad name", "question": {}})
        await layer.group_send(ORDERS, {"type": ASK, "reply": "gone!abc", "question": {}})
        assert len((await overview()).reports) == 1
    assert caplog.records == []


async def test_text_of_clients_cannot_control_a_terminal(
    default_layer: Callable[[ChannelLayer], ChannelLayer],
) -> None:
    async with default_layer(InMemoryChannelLayer()), _orders.orders(), client("/x/", Stranger()) as ws:
        ws.scope["path"] = "/\x1b[2J\n" + "x" * 500
        await ws.connect()
        ((_, row),) = (await overview()).connections
    assert row.path.startswith("/\\x1b[2J\\nxxx")
    assert row.path.isprintable()
    assert len(row.path) < 250
    assert (row.user, row.username) == ("8", "")


async def test_connection_without_a_mailbox_is_described(
    default_layer: Callable[[ChannelLayer], ChannelLayer],
) -> None:
    class Bare:
        scope = {"type": "http", "path": "/download/"}
        mailbox = user = session = None

    async with default_layer(InMemoryChannelLayer()):
        connections_of("http")[Bare()] = trio.current_time()  # type: ignore[index]
        (row,) = (await report.report(Question())).connections
    assert (row.kind, row.channel, row.layer, row.groups, row.user, row.number) == ("http", "", "", [], "", None)


async def test_groups_of_one_connection_are_limited(default_layer: Callable[[ChannelLayer], ChannelLayer]) -> None:
    async with default_layer(InMemoryChannelLayer()) as layer, _orders.orders(), client() as ws:
        await ws.connect()
        await ws.send_to(text_data="name")
        name = await ws.receive_from()
        for number in range(30):
            await layer.group_add(f"g{number}", name)
        seen = await overview()
    ((_, row),) = seen.connections
    assert (len(row.groups), row.more_groups) == (20, 11)
    assert seen.reports[0].all_groups == 31


async def test_connection_with_a_subscriber_is_a_member(served: Served) -> None:
    @websocket
    async def endpoint(ws: WebSocket) -> None:
        async with channel_layers["default"].subscribe("news"):
            await ws.accept()
            await trio.sleep_forever()

    async with served(), WebsocketCommunicator(endpoint, "/news/") as ws, client() as other:
        await ws.connect()
        await other.connect()
        seen = await overview(Question(group="news"))
        assert [row.path for _, row in seen.connections] == ["/news/"]
        assert seen.groups == [("default", "news", 1, 1)]


@pytest.mark.parametrize("serve", BOTH)
async def test_event_stream_is_described(serve: Any, default_layer: Callable[[ChannelLayer], ChannelLayer]) -> None:
    layer = default_layer(kept())
    async with layer, _orders.orders():
        with serve(channel_layer=layer, groups=["news"]) as application:
            async with visit(application) as http:
                await http.get_response_start()
                await http.receive_body()
                seen = await overview(Question(group="news"))
                assert [(row.kind, row.path) for _, row in seen.connections] == [("http", "/events/")]


async def test_cancelled_question_leaves_nothing(served: Served) -> None:
    async with served() as layer, layer.track(ORDERS, "zzz", META):
        with trio.move_on_after(0.1) as scope:
            await overview()
        assert scope.cancelled_caught
        assert layer.statistics().channels == 1  # of the tracker


# -- queues ------------------------------------------------------------------------------------------------------------


async def test_queue_and_dead_letters_are_shown_without_contents(served: Served) -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        event = await receive()
        raise RuntimeError(f"see https://example.com/?token={event['secret']}")

    async with served() as layer, trio.open_nursery() as nursery:
        worker = Worker(fail, ["jobs"], layer, max_deliveries=1)
        nursery.start_soon(worker.run)
        await layer.send("jobs", {"type": "job.do", "secret": "of-the-job"})
        while not (await layer.work_queue("jobs").size()).dead:
            await trio.lowlevel.checkpoint()
        seen = await overview(channels=["jobs", "idle"])
        worker.drain()
    idle, jobs = seen.queues
    assert (idle.channel, idle.backlog, idle.dead, idle.workers, idle.letters) == ("idle", 0, 0, 0, [])
    assert (jobs.channel, jobs.backlog, jobs.dead, jobs.workers, jobs.layer) == ("jobs", 0, 1, 1, "default")
    (letter,) = jobs.letters
    assert (letter.type, letter.deliveries) == ("job.do", 1)
    assert letter.why == "RuntimeError: see https://example.com/?token=***"
    assert b"of-the-job" not in msgspec.json.encode(seen)
    (working,) = seen.reports[0].workers
    assert (working.channel, working.failed, working.dead) == ("jobs", 1, 1)


jobs = ChannelNameRouter({"jobs": Room.as_asgi(), "images": Room.as_asgi()})
site = ProtocolTypeRouter({"channel": jobs})
bare = ProtocolTypeRouter({"websocket": Room.as_asgi()})


@pytest.mark.parametrize(
    ("name", "channels"), [("site", ["images", "jobs"]), ("jobs", ["images", "jobs"]), ("bare", []), ("nothing", [])]
)
def test_channels_of_the_application_are_known(name: str, channels: list[str], settings: Any) -> None:
    settings.ASGI_APPLICATION = f"{__name__}.{name}"
    assert channels_of_application() == channels
