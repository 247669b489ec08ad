"""Workers, over the in-memory layer and Trio's virtual clock; tests/faults has them over Redis and as processes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_channels.consumer import AsyncConsumer, SyncConsumer
from trio_channels.exceptions import ConfigurationError, InvalidChannelLayerError, InvalidNameError, NoRouteFound
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.routing import ChannelNameRouter, ProtocolTypeRouter
from trio_channels.worker import ChannelStatistics, Worker

from ..layers.test_contract import cancelled_at_checkpoint

Handler = Callable[[dict[str, Any], dict[str, Any]], Awaitable[object]]


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    layer = InMemoryChannelLayer()
    layer.work_queue("jobs")  # this process serves it: no warning of messages that nobody gets
    return layer


def application(handler: Handler) -> Any:
    """An ASGI application that gives each message, and its scope, to a function."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        await handler(await receive(), scope)

    return run


async def send(layer: InMemoryChannelLayer, *numbers: int, channel: str = "jobs") -> None:
    for number in numbers:
        await layer.send(channel, {"type": "job.do", "n": number})


@contextmanager
def nothing_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def drained(worker: Worker) -> None:
    """Run a worker until nothing is left to do, on a virtual clock."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.testing.wait_all_tasks_blocked()
        worker.drain()


def only(worker: Worker) -> ChannelStatistics:
    [statistics] = worker.statistics().channels.values()
    return statistics


# -- the application's messages ---------------------------------------------------------------------------------------


async def test_each_message_runs_the_application_once(
    layer: InMemoryChannelLayer,
) -> None:
    seen: list[Any] = []

    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        seen.append((message["n"], scope["type"], scope["channel"], scope["delivery"]["count"]))

    await send(layer, 0, 1)
    worker = Worker(application(handler), ["jobs"], layer, concurrency=1)
    await drained(worker)
    assert seen == [(0, "channel", "jobs", 1), (1, "channel", "jobs", 1)]
    assert only(worker).handled == 2


async def test_consumer_handles_messages_by_type(layer: InMemoryChannelLayer) -> None:
    instances: list[Any] = []

    class Jobs(AsyncConsumer):
        async def job_do(self, message: dict[str, Any]) -> None:
            instances.append((self, message["n"]))

    await send(layer, 0, 1)
    worker = Worker(
        ProtocolTypeRouter({"channel": ChannelNameRouter({"jobs": Jobs.as_asgi()})}), ["jobs"], layer, concurrency=1
    )
    await drained(worker)
    assert [n for _, n in instances] == [0, 1]
    assert instances[0][0] is not instances[1][0]
    assert only(worker).handled == 2


async def test_synchronous_consumer_works_on_worker_threads(layer: InMemoryChannelLayer) -> None:
    seen: list[int] = []
    done = trio.Event()
    token = trio.lowlevel.current_trio_token()

    class Jobs(SyncConsumer):
        def job_do(self, message: dict[str, Any]) -> None:
            seen.append(message["n"])
            if len(seen) == 3:
                token.run_sync_soon(done.set)

    await send(layer, 0, 1, 2)
    worker = Worker(Jobs.as_asgi(), ["jobs"], layer)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            await done.wait()
            worker.drain()
    assert sorted(seen) == [0, 1, 2]
    assert only(worker).handled == 3


async def test_consumer_with_concurrent_handlers_ends_after_its_message(layer: InMemoryChannelLayer) -> None:
    class Jobs(AsyncConsumer):
        handler_concurrency = 3

        async def job_do(self, message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()

    await send(layer, 0, 1)
    worker = Worker(Jobs.as_asgi(), ["jobs"], layer)
    await drained(worker)
    assert only(worker).handled == 2


async def test_asking_for_the_next_message_settles_the_last(layer: InMemoryChannelLayer) -> None:
    seen: list[int] = []
    ended: list[bool] = []

    async def loop(scope: Any, receive: Any, send: Any) -> None:
        try:
            while True:
                seen.append((await receive())["n"])
        finally:
            ended.append(True)

    await send(layer, 0, 1)
    worker = Worker(loop, ["jobs"], layer, concurrency=1)
    await drained(worker)
    assert (seen, ended, only(worker).handled) == ([0, 1], [True, True], 2)


async def test_application_without_a_client_is_told_so(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    async def sends(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.send", "text": "hello"})

    await send(layer, 0)
    await drained(Worker(sends, ["jobs"], layer, max_deliveries=1))
    assert "a worker has no client to send 'websocket.send' to" in caplog.text


@pytest.mark.parametrize("kind", ["websocket.receive", "http.disconnect"])
async def test_event_of_a_server_cannot_be_forged_by_a_message(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    class Jobs(AsyncConsumer):
        async def websocket_receive(self, message: dict[str, Any]) -> None:
            pytest.fail("handled")

        http_disconnect = websocket_receive

    await layer.send("jobs", {"type": kind, "text": "forged"})
    worker = Worker(Jobs.as_asgi(), ["jobs"], layer, max_deliveries=1)
    await drained(worker)
    assert f"expected a message with a type such as 'thumbnails.make'; got '{kind}'" in caplog.text
    assert only(worker).dead == 1


# -- several at a time ------------------------------------------------------------------------------------------------


async def test_handler_concurrency_holds_for_each_channel(
    layer: InMemoryChannelLayer, autojump_clock: MockClock
) -> None:
    running = dict.fromkeys(("jobs", "others"), 0)
    most = dict(running)

    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        channel = scope["channel"]
        running[channel] += 1
        most[channel] = max(most[channel], running[channel])
        await trio.sleep(1)
        running[channel] -= 1

    for channel in running:
        await send(layer, *range(7), channel=channel)
    worker = Worker(application(handler), ["jobs", "others"], layer, concurrency=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.sleep(2.5)
        assert [each.running for each in worker.statistics().channels.values()] == [1, 1]
        assert worker.statistics().channels["jobs"].oldest == 0.5
        await trio.sleep(1)
        worker.drain()
    assert most == {"jobs": 3, "others": 3}
    assert [each.handled for each in worker.statistics().channels.values()] == [7, 7]


async def test_with_a_concurrency_of_one_messages_are_handled_in_order(
    layer: InMemoryChannelLayer, autojump_clock: MockClock
) -> None:
    seen: list[int] = []

    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        await trio.sleep(1 / (1 + message["n"]))
        seen.append(message["n"])

    await send(layer, *range(10))
    worker = Worker(application(handler), "jobs", layer, concurrency=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.sleep(10)
        worker.drain()
    assert seen == list(range(10))


# -- failures ---------------------------------------------------------------------------------------------------------


async def test_failed_message_is_retried_after_growing_pauses(
    layer: InMemoryChannelLayer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    times: list[float] = []

    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        times.append(trio.current_time())
        assert scope["delivery"]["count"] == len(times)
        if len(times) < 4:
            raise ValueError("boom")

    await send(layer, 0)
    worker = Worker(application(handler), ["jobs"], layer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.sleep(20)
        worker.drain()
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == pytest.approx([1, 2, 4])
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in failures] == [
        f"jobs: message 1 of type 'job.do' (delivery {number} of 5) failed; again in {delay} s"
        for number, delay in ((1, 1), (2, 2), (3, 4))
    ]
    assert all(record.exc_info and isinstance(record.exc_info[1], ValueError) for record in failures)
    assert (only(worker).failed, only(worker).handled, only(worker).dead) == (3, 1, 0)


async def test_message_that_fails_every_time_becomes_a_dead_letter(
    layer: InMemoryChannelLayer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        if message["n"] == 0:
            raise ValueError("boom")

    await send(layer, 0, 1)
    worker = Worker(application(handler), ["jobs"], layer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.sleep(100)
        worker.drain()
    [letter] = await layer.work_queue("jobs").dead_letters()
    assert (letter.message, letter.deliveries, letter.why) == ({"type": "job.do", "n": 0}, 5, "ValueError: boom")
    last = [record for record in caplog.records if record.levelno == logging.ERROR][-1]
    assert last.getMessage() == "jobs: message 1 of type 'job.do' (delivery 5 of 5) failed; it is a dead letter now"
    assert (only(worker).failed, only(worker).handled, only(worker).dead) == (5, 1, 1)


async def test_what_a_consumer_raises_names_the_handler_and_the_channel(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    class Jobs(AsyncConsumer):
        async def job_do(self, message: dict[str, Any]) -> None:
            raise ValueError("boom")

    await send(layer, 0)
    await drained(Worker(Jobs.as_asgi(), ["jobs"], layer, max_deliveries=1))
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None
    assert getattr(record.exc_info[1], "__notes__", ()) == ["in the handler of 'job.do'", "on channel jobs"]


async def test_message_without_a_handler_names_the_missing_method(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    class Jobs(AsyncConsumer):
        pass

    await send(layer, 0)
    await drained(Worker(Jobs.as_asgi(), ["jobs"], layer, max_deliveries=1))
    assert "Jobs has no method job_do(self, event)" in caplog.text


async def test_early_acknowledgement_loses_a_failed_message_aloud(
    layer: InMemoryChannelLayer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        calls.append(message["n"])
        if message["n"] == 0:
            raise ValueError("boom")

    await send(layer, 0, 1)
    worker = Worker(application(handler), ["jobs"], layer, ack="on-receive")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.sleep(100)
        worker.drain()
    assert sorted(calls) == [0, 1]
    assert "failed; it is lost, as it was acknowledged on receive" in caplog.text
    assert (only(worker).failed, only(worker).handled, only(worker).dead) == (1, 1, 0)
    assert await layer.work_queue("jobs").dead_letters() == []


async def test_handler_with_system_exit_fails_and_the_worker_lives(
    layer: InMemoryChannelLayer, autojump_clock: MockClock
) -> None:
    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        if message["n"] == 0:
            raise SystemExit(3)

    await send(layer, 0, 1)
    worker = Worker(application(handler), ["jobs"], layer, max_deliveries=1)
    await drained(worker)
    assert (only(worker).failed, only(worker).handled, only(worker).dead) == (1, 1, 1)


# -- the end ----------------------------------------------------------------------------------------------------------


async def _fails_to_clean_up(message: dict[str, Any], scope: dict[str, Any]) -> None:
    async def part() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in the clean-up")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(part)
        nursery.start_soon(trio.sleep_forever)


@pytest.mark.parametrize(("ack", "fate"), [("after-handler", "again in 1 s"), ("on-receive", "it is lost")])
async def test_cancelled_handlers_that_fail_to_clean_up_are_logged(
    ack: Any, fate: str, layer: InMemoryChannelLayer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    await send(layer, 0)
    worker = Worker(application(_fails_to_clean_up), ["jobs"], layer, ack=ack, grace=3)
    await drained(worker)
    assert only(worker).failed == 1
    assert fate in caplog.text


async def test_handler_that_exits_in_one_of_its_tasks_ends_the_worker(
    layer: InMemoryChannelLayer, autojump_clock: MockClock
) -> None:
    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        async def leave() -> None:
            raise SystemExit(3)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)

    await send(layer, 0)
    with pytest.raises(BaseExceptionGroup) as caught:
        await drained(Worker(application(handler), ["jobs"], layer))
    assert caught.group_contains(SystemExit)


async def test_cancelled_handlers_whose_messages_are_lost_are_said_to_be(
    layer: InMemoryChannelLayer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        await trio.sleep_forever()

    await send(layer, 0)
    await drained(Worker(application(handler), ["jobs"], layer, ack="on-receive", grace=3))
    assert "Their messages are lost: acknowledged on receive" in caplog.text


async def test_draining_takes_nothing_more_and_waits_for_what_runs(
    layer: InMemoryChannelLayer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        await trio.sleep(5)
        seen.append(message["n"])

    await send(layer, 0, 1, 2)
    worker = Worker(application(handler), ["jobs"], layer, concurrency=2, grace=10)
    with nothing_logged(caplog):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            await trio.sleep(1)
            worker.drain()
            worker.drain()
            assert repr(worker) == "<Worker draining, jobs: 2 running, 0 handled>"
    assert sorted(seen) == [0, 1]
    assert trio.current_time() == pytest.approx(5)
    async with layer.work_queue("jobs").serve() as source:
        assert [delivery.message["n"] for delivery in await source.take(9)] == [2]


async def test_handlers_beyond_the_grace_give_messages_back(
    layer: InMemoryChannelLayer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        await trio.sleep_forever()

    await send(layer, 0, 1)
    worker = Worker(application(handler), ["jobs"], layer, grace=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.testing.wait_all_tasks_blocked()
        worker.drain()
    assert trio.current_time() == pytest.approx(3)
    assert "jobs: 2 handlers were cancelled: they took longer than 3 seconds" in caplog.text
    async with layer.work_queue("jobs").serve() as source:
        back = [*await source.take(1), *await source.take(1)]
        assert sorted((delivery.message["n"], delivery.count) for delivery in back) == [(0, 1), (1, 1)]


async def test_worker_that_is_drained_before_it_starts_does_nothing(layer: InMemoryChannelLayer) -> None:
    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        pytest.fail("handled")

    await send(layer, 0)
    worker = Worker(application(handler), ["jobs"], layer)
    worker.drain()
    with trio.fail_after(30):
        await worker.run()
    assert only(worker).handled == 0


async def test_handler_cancelled_anywhere_loses_no_message(layer: InMemoryChannelLayer) -> None:
    done: list[int] = []
    number = 0

    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        with cancelled_at_checkpoint(number) as cancelled:
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            done.append(message["n"])
        if cancelled.cancel_called:
            nursery.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()

    for number in range(1, 5):
        await send(layer, number)
        worker = Worker(application(handler), ["jobs"], layer, concurrency=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert sorted(set(done)) == [1, 2, 3, 4]


async def test_error_that_is_not_a_handlers_ends_the_worker_as_it_is(layer: InMemoryChannelLayer) -> None:
    class Broken(InMemoryChannelLayer):
        async def receive(self, channel: str) -> dict[str, Any]:
            raise OSError("the backend is broken")

    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        pytest.fail("handled")

    with pytest.raises(OSError, match="the backend is broken"):
        await Worker(application(handler), ["jobs"], Broken()).run()


async def test_several_errors_end_the_worker_in_a_group(layer: InMemoryChannelLayer) -> None:
    class Broken(InMemoryChannelLayer):
        async def receive(self, channel: str) -> dict[str, Any]:
            raise OSError("the backend is broken")

    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        pytest.fail("handled")

    with pytest.raises(BaseExceptionGroup) as raised:
        await Worker(application(handler), ["jobs", "others"], Broken()).run()
    assert raised.value.split(OSError)[1] is None


# -- the log ----------------------------------------------------------------------------------------------------------


async def test_work_done_is_logged_once_a_minute(
    layer: InMemoryChannelLayer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_channels.worker")

    async def handler(message: dict[str, Any], scope: dict[str, Any]) -> None:
        await trio.sleep(100 * message["n"])

    await send(layer, 0, 1)
    worker = Worker(application(handler), ["jobs"], layer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.sleep(300)
        worker.drain()
    first, *reports, last = [record.getMessage() for record in caplog.records]
    assert first.startswith("working on jobs: 10 handlers each, acknowledged after-handler, through <InMemory")
    assert reports == [
        "jobs: 1 handled, 0 failed, 1 running; the oldest handler runs for 60 s",
        "jobs: 2 handled, 0 failed, 0 running",
    ]
    assert last == "stopped: jobs: 2 handled, 0 failed, 0 running"


async def _handles(message: Any, scope: Any) -> None:
    """Nothing to do."""


# -- refused arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"channels": []}, "channels of a worker must be the names of one channel or more; got \\[\\]"),
        ({"concurrency": 0}, "concurrency of a worker must be an int of at least 1; got 0"),
        ({"concurrency": True}, "concurrency of a worker must be an int of at least 1; got True"),
        ({"ack": "never"}, "ack of a worker must be one of .'after-handler', 'on-receive'.; got 'never'"),
        ({"max_deliveries": 0}, "max_deliveries of a worker must be an int of at least 1; got 0"),
        ({"claim_after": 0}, "claim_after of a worker must be a number of seconds above 0; got 0"),
        ({"grace": -1}, "grace of a worker must be a number of seconds, 0 or more; got -1"),
    ],
)
def test_impossible_argument_is_refused(layer: InMemoryChannelLayer, options: dict[str, Any], complaint: str) -> None:
    arguments = {"application": ChannelNameRouter({"jobs": application(_handles)}), "channels": ["jobs"]} | options
    with pytest.raises(ConfigurationError, match=complaint):
        Worker(channel_layer=layer, **arguments)


def test_application_without_a_route_for_channels_is_refused(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(ConfigurationError, match="has no application for the scope type 'channel'"):
        Worker(ProtocolTypeRouter({}), ["jobs"], layer)


@pytest.mark.parametrize("nested", [True, False])
def test_channel_that_the_router_does_not_know_is_refused(layer: InMemoryChannelLayer, nested: bool) -> None:
    router: Any = ChannelNameRouter({"jobs": application(_handles)})
    router = ProtocolTypeRouter({"channel": router}) if nested else router
    with pytest.raises(NoRouteFound, match="no application for the channel 'job'; known: 'jobs'"):
        Worker(router, ["jobs", "job"], layer)


def test_name_that_no_channel_can_have_is_refused(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(InvalidNameError, match="got 'no name'"):
        Worker(ChannelNameRouter({}), ["no name"], layer)


def test_layer_without_named_channels_is_refused() -> None:
    class Foreign(InMemoryChannelLayer):
        def work_queue(self, channel: str) -> Any:
            return super(InMemoryChannelLayer, self).work_queue(channel)

    with pytest.raises(InvalidChannelLayerError, match="Foreign has no named channels for workers"):
        Worker(ChannelNameRouter({}), ["jobs"], Foreign())
