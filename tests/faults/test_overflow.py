"""Fast publishers and a member that cannot keep up: its overflow rule applies to it, and to no neighbour."""

from __future__ import annotations

import functools
import random
import threading
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_channels._asgi.protocol import Message
from trio_channels._limits import Limits
from trio_channels.exceptions import MailboxOverflow
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.base import ChannelLayer, Gap

from .checker import DeliveryChecker, Receiver

pytestmark = pytest.mark.faults

SEEDS = range(10)
CAPACITY = 20
PUBLISHERS = 3
#: Messages of one publisher in one burst. A mailbox holds the bursts of three publishers, so that a member that runs
#: between the bursts keeps up.
BURST = 5
BURSTS = 40
NEIGHBOURS = 5

DROPPING = ["drop_newest", "drop_oldest"]


class Client:
    """The server's side of one member, whose client may read slowly or not at all."""

    def __init__(self, receiver: Receiver, *, turns: trio.Semaphore | None = None, reads: bool = True) -> None:
        self.receiver = receiver
        self.turns = turns
        self.reads = reads
        self.ended = trio.Event()
        self.codes: list[int] = []
        self.sent: list[Message] = []
        self.leave = trio.Event()
        self._events = [{"type": "websocket.connect"}]

    @property
    def scope(self) -> dict[str, Any]:
        return {"type": "websocket", "path": f"/{self.receiver.name}/", "headers": [], "client_of_test": self}

    async def receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        if self._events:
            return self._events.pop()
        await self.leave.wait()
        return {"type": "websocket.disconnect", "code": self.sent[-1].get("code", 1001)}

    async def send(self, message: Message) -> None:
        if not self.reads and message["type"] != "websocket.accept":
            await trio.sleep_forever()
        self.sent.append(message)
        if message["type"] == "websocket.close":
            self.receiver.close()
            self.leave.set()

    async def run(self, application: Any) -> None:
        await application(self.scope, self.receive, self.send)
        self.ended.set()


def member(layer: ChannelLayer, rule: str | None = None, limits: Limits | None = None) -> Any:
    """A member of "room" that shows its receiver each message, after a permit of the client's ``turns``."""

    class Member(AsyncWebsocketConsumer):
        channel_layer = layer
        groups = ("room",)
        mailbox_overflow = rule

        async def stamped_message(self, event: Message) -> None:
            client: Client = self.scope["client_of_test"]
            if client.turns is not None:
                await client.turns.acquire()
            client.receiver.got(event)
            await self.send(str(event["n"]))

        async def channel_layer_gap(self, event: Message) -> None:
            self.scope["client_of_test"].receiver.got(event)

        async def disconnect(self, code: int) -> None:
            self.scope["client_of_test"].codes.append(code)

    Member.limits = limits
    return Member.as_asgi()


async def burst(checker: DeliveryChecker, layer: ChannelLayer) -> None:
    """Each publisher sends as fast as it can; the members run only by chance before all are done."""
    async with trio.open_nursery() as nursery:
        for publisher in range(PUBLISHERS):
            nursery.start_soon(publish, checker, layer, f"publisher {publisher}")
    await wait_all_tasks_blocked()


async def publish(checker: DeliveryChecker, layer: ChannelLayer, publisher: str) -> None:
    for _ in range(BURST):
        await layer.group_send("room", checker.stamp(publisher, "room"))


async def join_neighbours(nursery: trio.Nursery, checker: DeliveryChecker, layer: ChannelLayer) -> list[Client]:
    clients = [Client(checker.receiver(f"neighbour {number}", "room")) for number in range(NEIGHBOURS)]
    for client in clients:
        nursery.start_soon(client.run, member(layer))
    await wait_all_tasks_blocked()
    return clients


def assert_untouched(clients: list[Client], count: int = PUBLISHERS * BURST * BURSTS) -> None:
    for client in clients:
        assert (client.receiver.messages, client.receiver.lost) == (count, 0)
        assert len(client.sent) == 1 + count
        assert not client.codes


def assert_empty(layer: InMemoryChannelLayer) -> None:
    seen = layer.statistics()
    assert (seen.channels, seen.groups, seen.memberships, seen.waiting) == (0, 0, 0, 0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rule", DROPPING)
async def test_slow_member_that_drops_is_told_of_exactly_what_it_lost(
    rule: str, seed: int, mock_clock: MockClock
) -> None:
    trio._core._run._r.seed(seed)
    rng = random.Random(seed)
    layer, checker = InMemoryChannelLayer(capacity=CAPACITY), DeliveryChecker()
    slow = Client(checker.receiver("slow", "room"), turns=trio.Semaphore(0))
    async with trio.open_nursery() as nursery:
        neighbours = await join_neighbours(nursery, checker, layer)
        nursery.start_soon(slow.run, member(layer, rule))
        await wait_all_tasks_blocked()
        for _ in range(BURSTS):
            for _ in range(rng.choice([0, 0, 3, 12, 25])):
                slow.turns.release()
            await burst(checker, layer)
        for _ in range(2 * CAPACITY):
            slow.turns.release()
        await wait_all_tasks_blocked()

        assert checker.faults() == [], f"seed {seed}"
        assert_untouched(neighbours)
        assert slow.receiver.lost == layer.statistics().dropped > 0
        assert slow.receiver.messages + slow.receiver.lost == PUBLISHERS * BURST * BURSTS
        for client in [slow, *neighbours]:
            client.leave.set()
    assert slow.codes == [1001]
    assert_empty(layer)


@pytest.mark.parametrize("rule", DROPPING)
async def test_stuck_member_that_drops_holds_up_nobody(rule: str, mock_clock: MockClock) -> None:
    layer, checker = InMemoryChannelLayer(capacity=CAPACITY), DeliveryChecker()
    stuck = Client(checker.receiver("stuck", "room"), turns=trio.Semaphore(0))
    async with trio.open_nursery() as nursery:
        neighbours = await join_neighbours(nursery, checker, layer)
        nursery.start_soon(stuck.run, member(layer, rule))
        await wait_all_tasks_blocked()
        for _ in range(BURSTS):
            await burst(checker, layer)
        assert_untouched(neighbours)
        assert stuck.receiver.messages == 0
        assert layer.statistics().waiting == CAPACITY
        for _ in range(2 * CAPACITY):
            stuck.turns.release()
        await wait_all_tasks_blocked()
        assert checker.faults() == []
        nursery.cancel_scope.cancel()
    assert_empty(layer)


@pytest.mark.parametrize("seed", SEEDS)
async def test_slow_member_is_closed_and_its_neighbours_served(seed: int, mock_clock: MockClock) -> None:
    trio._core._run._r.seed(seed)
    rng = random.Random(seed)
    layer, checker = InMemoryChannelLayer(capacity=CAPACITY), DeliveryChecker()
    slow = Client(checker.receiver("slow", "room"), turns=trio.Semaphore(0))
    async with trio.open_nursery() as nursery:
        neighbours = await join_neighbours(nursery, checker, layer)
        nursery.start_soon(slow.run, member(layer, "close"))
        await wait_all_tasks_blocked()
        for _ in range(BURSTS):
            for _ in range(rng.choice([0, 3, 12, 25])):
                slow.turns.release()
            await burst(checker, layer)
        for _ in range(2 * CAPACITY):
            slow.turns.release()
        await slow.ended.wait()

        assert slow.sent[-1] == {"type": "websocket.close", "code": 1013, "reason": "too slow for its groups"}
        assert slow.codes == [1013]
        assert checker.faults() == [], f"seed {seed}"
        assert_untouched(neighbours)
        assert layer.statistics().memberships == NEIGHBOURS
        for client in neighbours:
            client.leave.set()
    assert_empty(layer)


async def test_member_stuck_in_a_handler_is_cut(autojump_clock: MockClock) -> None:
    layer, checker = InMemoryChannelLayer(capacity=CAPACITY), DeliveryChecker()
    stuck = Client(checker.receiver("stuck", "room"), turns=trio.Semaphore(0))
    async with trio.open_nursery() as nursery:
        neighbours = await join_neighbours(nursery, checker, layer)
        nursery.start_soon(stuck.run, member(layer, "close", Limits(disconnect_timeout=3)))
        await wait_all_tasks_blocked()
        for _ in range(BURSTS):
            await burst(checker, layer)
        await stuck.ended.wait()
        assert stuck.sent[-1]["code"] == 1013
        assert stuck.codes == [1013]
        assert checker.faults() == []
        assert_untouched(neighbours)
        nursery.cancel_scope.cancel()


async def test_member_whose_client_does_not_read_ends(autojump_clock: MockClock) -> None:
    layer, checker = InMemoryChannelLayer(capacity=CAPACITY), DeliveryChecker()
    stuck = Client(checker.receiver("stuck", "room"), reads=False)
    async with trio.open_nursery() as nursery:
        neighbours = await join_neighbours(nursery, checker, layer)
        nursery.start_soon(stuck.run, member(layer, "close", Limits(disconnect_timeout=3, close_timeout=4)))
        await wait_all_tasks_blocked()
        for _ in range(BURSTS):
            await burst(checker, layer)
        await stuck.ended.wait()
        assert stuck.codes == [1013]
        stuck.receiver.close()
        assert checker.faults() == []
        assert_untouched(neighbours)
        nursery.cancel_scope.cancel()
    assert_empty(layer)


async def test_member_stuck_in_its_thread_is_closed_afterwards() -> None:
    layer, checker = InMemoryChannelLayer(capacity=CAPACITY), DeliveryChecker()
    gate = threading.Event()

    class Member(WebsocketConsumer):
        channel_layer = layer
        groups = ("room",)

        def stamped_message(self, event: Message) -> None:
            assert gate.wait(20)
            self.scope["client_of_test"].receiver.got(event)

        def disconnect(self, code: int) -> None:
            self.scope["client_of_test"].codes.append(code)

    stuck = Client(checker.receiver("stuck", "room"))
    async with trio.open_nursery() as nursery:
        neighbours = await join_neighbours(nursery, checker, layer)
        nursery.start_soon(stuck.run, Member.as_asgi())
        while layer.statistics().memberships <= NEIGHBOURS:
            await trio.lowlevel.checkpoint()
        try:
            for _ in range(BURSTS):
                await burst(checker, layer)
            assert_untouched(neighbours)
        finally:
            gate.set()
        await stuck.ended.wait()
        assert stuck.sent[-1]["code"] == 1013
        assert stuck.codes == [1013]
        assert checker.faults() == []
        for client in neighbours:
            client.leave.set()
    assert_empty(layer)


async def subscriber(
    layer: ChannelLayer, receiver: Receiver, rule: Any, turns: trio.Semaphore, errors: list[Exception]
) -> None:
    try:
        async with layer.subscribe("room", overflow=rule) as events:
            while True:
                await turns.acquire()
                event = await anext(events)
                receiver.got(event.as_event() if isinstance(event, Gap) else event)
    except MailboxOverflow as error:
        receiver.close()
        errors.append(error)


@pytest.mark.parametrize("seed", SEEDS)
async def test_slow_subscribers_of_every_rule_side_by_side(seed: int, mock_clock: MockClock) -> None:
    trio._core._run._r.seed(seed)
    rng = random.Random(seed)
    layer, checker = InMemoryChannelLayer(capacity=CAPACITY), DeliveryChecker()
    errors: list[Exception] = []
    async with trio.open_nursery() as nursery:
        neighbours = await join_neighbours(nursery, checker, layer)
        turns = {rule: trio.Semaphore(0) for rule in ("close", *DROPPING)}
        for rule, semaphore in turns.items():
            receiver = checker.receiver(rule, "room")
            nursery.start_soon(functools.partial(subscriber, layer, receiver, rule, semaphore, errors))
        await wait_all_tasks_blocked()
        for _ in range(BURSTS):
            for semaphore in turns.values():
                for _ in range(rng.choice([0, 0, 3, 12, 25])):
                    semaphore.release()
            await burst(checker, layer)
        for semaphore in turns.values():
            for _ in range(3 * CAPACITY):
                semaphore.release()
        await wait_all_tasks_blocked()
        assert checker.faults() == [], f"seed {seed}"
        assert_untouched(neighbours)
        assert len(errors) == 1
        nursery.cancel_scope.cancel()
    assert_empty(layer)
