"""The layer restarts a task that crashes. One that keeps crashing ends the connections; new ones are refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import trio
import trio.testing

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.layers.base import Gap
from trio_channels.layers.redis import RedisStreamsChannelLayer, supervision
from trio_channels.layers.redis.delivery import Delivery
from trio_channels.layers.redis.inbox import InboxReader
from trio_channels.layers.redis.memberships import Memberships
from trio_channels.layers.redis.pipeline import Pipeline
from trio_channels.layers.redis.probe import Prober
from trio_channels.layers.redis.supervision import CRASHES, LONG_PAUSE, STABLE, Supervisor
from trio_channels.testing import HttpCommunicator, WebsocketCommunicator
from trio_channels.websocket import WebSocket, websocket

from .world import make_layers, until

pytestmark = pytest.mark.slow

LAST = {"type": "last"}


class Defect(Exception):
    """An exception that no task handles."""


# -- the supervisor ----------------------------------------------------------------------------------------------------


class Patient:
    """A task that crashes after each of its lives, in seconds, and then runs for ever."""

    def __init__(self, *lives: float) -> None:
        self.lives = list(lives)
        self.starts: list[float] = []

    async def run(self) -> None:
        self.starts.append(trio.current_time())
        if not self.lives:
            await trio.sleep_forever()
        await trio.sleep(self.lives.pop(0))
        raise Defect("it crashes")


async def kept(patient: Patient, seconds: float) -> tuple[Supervisor, list[str]]:
    """Supervise the patient for some seconds; returns the supervisor, and its reports of broken tasks."""
    broken: list[str] = []
    supervisor = Supervisor("the shard", broken.append)
    with trio.move_on_after(seconds):
        await supervisor.run("the patient", patient.run)
    return supervisor, broken


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, "trio_channels.layers.redis")


@pytest.mark.usefixtures("quiet")
async def test_task_that_crashes_begins_again_after_pauses_that_grow(
    autojump_clock: trio.testing.MockClock,
) -> None:
    patient = Patient(0, 0, 0, 0)
    supervisor, broken = await kept(patient, 5)
    pauses = [after - before for before, after in zip(patient.starts, patient.starts[1:], strict=False)]
    assert len(pauses) == 4
    assert all(0.025 * 2**n <= pause <= 0.05 * 2**n + 1e-9 for n, pause in enumerate(pauses))
    assert (supervisor.crashes, supervisor.problem, broken) == (4, None, [])


@pytest.mark.usefixtures("quiet")
async def test_five_crashes_in_a_row_are_told_once_with_what_was_raised(
    autojump_clock: trio.testing.MockClock,
) -> None:
    patient = Patient(*[0] * (CRASHES + 2))
    supervisor, broken = await kept(patient, 2.5 * LONG_PAUSE)
    assert broken == ["the patient of the shard has crashed 5 times in a row: Defect: it crashes"]
    assert supervisor.problem == "the patient of the shard has crashed 7 times in a row: Defect: it crashes"
    assert patient.starts[CRASHES] - patient.starts[CRASHES - 1] == pytest.approx(LONG_PAUSE)


@pytest.mark.usefixtures("quiet")
async def test_broken_task_that_runs_for_a_while_is_whole_again(autojump_clock: trio.testing.MockClock) -> None:
    patient = Patient(*[0] * CRASHES)
    supervisor, _ = await kept(patient, 1.5 + LONG_PAUSE + STABLE / 2)
    assert supervisor.problem is not None
    await trio.sleep(STABLE)
    assert supervisor.problem is None


@pytest.mark.usefixtures("quiet")
async def test_crashes_that_are_far_apart_do_not_add_up(autojump_clock: trio.testing.MockClock) -> None:
    supervisor, broken = await kept(Patient(*[STABLE] * 10), 12 * STABLE)
    assert broken == []
    assert supervisor.crashes == 1
    assert "all is well" in repr(supervisor)


# -- a layer's tasks --------------------------------------------------------------------------------------------------


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[..., list[int]]:
    """Makes a method crash in its next `times` calls; returns a list with the number of crashes that are left."""
    caplog.set_level(logging.CRITICAL + 1, "trio_channels.layers.redis")

    def crash(owner: type, method: str, times: int) -> list[int]:
        original = getattr(owner, method)
        left = [times]

        def crashing(self: Any, *args: Any, **kwargs: Any) -> Any:
            if left[0]:
                left[0] -= 1
                raise Defect(method)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(owner, method, crashing)
        return left

    return crash


PLACES = [
    (Pipeline, "_settle"),
    (InboxReader, "_check_inbox"),
    (Memberships, "_send"),
    (Memberships, "_arguments"),
]


@pytest.mark.parametrize(("owner", "method"), PLACES)
async def test_task_that_crashes_once_costs_no_message_and_no_membership(
    url: str, crash: Callable[..., list[int]], owner: type, method: str
) -> None:
    [layer] = make_layers(url)
    async with layer, layer.subscribe("one") as events:
        left = crash(owner, method, 1)
        async with layer.subscribe("two") as others:
            for crashed in (False, True):
                await layer.group_send("one", LAST)
                await layer.group_send("two", LAST)
                for one in (events, others):
                    with trio.fail_after(20):
                        assert await anext(one) == LAST
                if not crashed:
                    await until(lambda: left == [0])
        assert layer.statistics().healthy


async def test_probing_task_and_a_refreshing_task_that_crash_begin_again(
    url: str, crash: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [(Prober, "run"), (Memberships, "refresh")]
    left = [crash(owner, method, 1) for owner, method in runs]
    [layer] = make_layers(url)
    async with layer:
        await until(lambda: left == [[0], [0]])
        [shard] = layer.shard_statistics()
        assert shard.crashes == 2
        assert shard.state == "working"


async def test_a_message_that_crashes_the_reader_is_a_gap(url: str, crash: Callable[..., list[int]]) -> None:
    [layer] = make_layers(url)
    async with layer, layer.subscribe("room") as events:
        crash(Delivery, "deliver", 1)
        await layer.group_send("room", {"type": "crashes"})
        await layer.group_send("room", LAST)
        with trio.fail_after(20):
            assert await anext(events) == Gap(None, "a message could not be delivered")
            assert await anext(events) == LAST


# -- a broken layer ---------------------------------------------------------------------------------------------------


class Member(AsyncWebsocketConsumer):
    """A member of the room, which records the close code that it gets."""

    codes: ClassVar[list[int]] = []

    async def connect(self) -> None:
        await self.channel_layer.group_add("room", self.channel_name)  # type: ignore[union-attr]
        await self.accept()

    async def disconnect(self, code: int) -> None:
        self.codes.append(code)


class Page(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.channel_layer.group_send("room", LAST)  # type: ignore[union-attr]
        await self.send_response(200, b"sent")


def native(layer: RedisStreamsChannelLayer) -> Any:
    @websocket
    async def endpoint(ws: WebSocket) -> None:
        async with layer.subscribe("room") as events:
            await ws.accept()
            async for _ in events:
                pass

    return endpoint


async def test_broken_layer_closes_with_1012_and_refuses_with_503(url: str, crash: Callable[..., list[int]]) -> None:
    [layer] = make_layers(url, timeout=1.5)
    consumer = type("Here", (Member,), {"channel_layer": layer, "codes": []})
    page = type("Page", (Page,), {"channel_layer": layer})
    async with layer:
        channel = await layer.new_channel()
        sockets = [WebsocketCommunicator(application, "/") for application in (consumer.as_asgi(), native(layer))]
        for socket in sockets:
            assert (await socket.connect())[0]
        assert layer.statistics().healthy
        crash(Pipeline, "_settle", -1)

        async def receive() -> None:
            with pytest.raises(ChannelLayerUnavailable, match="ended while"):
                await layer.receive(channel)

        async def call_in_vain() -> None:
            with pytest.raises(ChannelLayerUnavailable):
                await layer.group_send("room", LAST)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(call_in_vain)
            for socket in sockets:
                assert await socket.receive_output(timeout=20) == {
                    "type": "websocket.close",
                    "code": 1012,
                    "reason": "service unavailable",
                }
            for socket in sockets:
                await socket.wait(timeout=20)
        assert consumer.codes == [1012]
        assert not layer.statistics().healthy
        [shard] = layer.shard_statistics()
        assert shard.state == "broken"
        assert shard.problem is not None
        assert shard.problem.endswith("has crashed 5 times in a row: Defect: _settle")

        for application in (consumer.as_asgi(), native(layer)):
            refused = WebsocketCommunicator(application, "/")
            assert await refused.connect() == (False, 503)
            await refused.wait()
        response = await HttpCommunicator(page.as_asgi(), "GET", "/").get_response()
        assert response["status"] == 503
        for call in (
            lambda: layer.group_send("room", LAST),
            lambda: layer.send(channel, LAST),
            lambda: layer.group_add("room", channel),
            lambda: layer.receive(channel),
            lambda: layer.new_channel(),
            lambda: layer.flush(),
        ):
            with pytest.raises(ChannelLayerUnavailable, match=r"is broken: the pipeline of .* has crashed 5 times"):
                await call()
        await layer.group_discard("room", channel)  # a broken layer still lets members leave


async def test_layer_that_is_no_longer_broken_takes_connections(
    url: str, crash: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "LONG_PAUSE", 0.05)
    [layer] = make_layers(url)
    async with layer:
        async with layer.subscribe("room") as events:
            crash(InboxReader, "_check_inbox", CRASHES)
            with trio.fail_after(20), pytest.raises(ChannelLayerUnavailable, match="the reader"):
                async for _ in events:
                    pass
        monkeypatch.setattr(supervision, "STABLE", 0.05)  # not earlier: a slow task runs as long before it crashes
        await until(lambda: layer.statistics().healthy)
        async with layer.subscribe("room") as events:
            await layer.group_send("room", LAST)
            with trio.fail_after(20):
                assert await anext(events) == LAST
