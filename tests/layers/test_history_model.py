"""A history against a model of it: random sends, joins, reads and flushes, on every layer.

The model is a list of all messages of a group. A member that resumes from any position gets each message behind it once
and in order, or learns that it was not recovered. It is recovered whenever the history promises it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.base import ChannelLayer, Gap, Subscription

from ..redis_server import RedisServer
from .redis.world import make_layers

KEPT = 4
GROUPS = ("room.a", "room.b")
OPTIONS: dict[str, Any] = {"history": {"room.*": {"messages": KEPT, "seconds": 600}}, "capacity": 1000}
#: A step, a group, and a number, whose meaning is up to the step.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "join", "resume", "leave", "read", "page", "flush"]),
        st.sampled_from(GROUPS),
        st.integers(0, 9),
    ),
    max_size=30,
)
FLUSH = -1


class Model:
    """The layer, the messages sent, and members that come and go."""

    def __init__(self, layer: ChannelLayer) -> None:
        self.layer = layer
        self.sent: dict[str, list[str]] = {group: [] for group in GROUPS}  # positions since the last flush
        self.known: dict[str, list[str]] = {group: [] for group in GROUPS}  # positions that a client may hand back
        self.members: list[Member] = []

    def behind(self, group: str, since: str | None) -> list[int] | None:
        """The numbers of the messages behind a position, or None if it must not be recovered."""
        sent = self.sent[group]
        if since not in sent:
            return None
        missed = list(range(sent.index(since) + 1, len(sent)))
        return missed if len(missed) <= KEPT else None

    async def send(self, group: str, _number: int) -> None:
        number = len(self.sent[group])
        position = await self.layer.group_send(group, {"type": "test.message", "n": number})
        assert position is not None
        assert position not in self.known[group]
        self.sent[group].append(position)
        self.known[group].append(position)
        for member in self.members:
            if member.group == group:
                member.expected.append(number)

    async def join(self, group: str, number: int) -> None:
        await self._enter(group, None)

    async def resume(self, group: str, number: int) -> None:
        positions = self.known[GROUPS[number % 2]] or ["garbage"]
        await self._enter(group, positions[-1 - number % len(positions)])

    async def _enter(self, group: str, since: str | None) -> None:
        stack = AsyncExitStack()
        events = await stack.enter_async_context(self.layer.subscribe(group, since=since))
        recovery = events.recovery[group]
        missed = self.behind(group, since)
        assert recovery.recovered is (missed is not None)
        assert recovery.missed == len(missed or ())
        if self.sent[group]:
            assert recovery.position == (since if recovery.recovered else self.sent[group][-1])
        gap: list[Any] = [] if since is None or recovery.recovered else [Gap(None, "not recovered")]
        self.members.append(Member(stack, events, group, gap + (missed or [])))

    async def leave(self, _group: str, number: int) -> None:
        if self.members:
            await self.members.pop(number % len(self.members)).check()

    async def read(self, group: str, number: int) -> None:
        found = await self.layer.history(group, limit=number or None)
        numbers = range(len(self.sent[group]))[-KEPT:]
        assert [message["n"] for message in found.messages] == list(numbers[-(number or KEPT) :])

    async def page(self, group: str, number: int) -> None:
        if not self.sent[group]:
            return
        since: str | None = self.sent[group][-1 - number % len(self.sent[group])]
        missed = self.behind(group, since)
        came: list[int] = []
        while (page := await self.layer.history(group, since=since, limit=2)).messages:
            came += [message["n"] for message in page.messages]
            since = page.position
        assert came == (missed or [])
        assert page.recovered is (missed is not None)

    async def flush(self, _group: str, _number: int) -> None:
        for member in self.members:
            await member.check()
        self.members.clear()
        await self.layer.flush()
        self.sent = {group: [] for group in GROUPS}


class Member:
    """A subscriber, and the items that it must have got."""

    def __init__(self, stack: AsyncExitStack, events: Subscription, group: str, expected: list[Any]) -> None:
        self._stack = stack
        self._events = events
        self.group = group
        self.expected = expected

    async def check(self) -> None:
        with trio.fail_after(10):
            items: list[Any] = [await anext(self._events) for _ in self.expected]  # type: ignore[arg-type]
        assert [item if isinstance(item, Gap) else item["n"] for item in items] == self.expected
        await self._stack.aclose()


async def run(layer: ChannelLayer, steps: list[tuple[str, str, int]]) -> None:
    model = Model(layer)
    for step, group, number in steps:
        await getattr(model, step)(group, number)
    for member in model.members:
        await member.check()


@given(steps=STEPS)
@settings(max_examples=40, deadline=None)
async def test_in_memory_history_is_as_its_model(steps: list[tuple[str, str, int]]) -> None:
    await run(InMemoryChannelLayer(**OPTIONS), steps)


@pytest.mark.parametrize("examples", [8, pytest.param(300, marks=pytest.mark.slow)])
def test_history_on_redis_is_as_its_model(redis_server: RedisServer, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, database=None, derandomize=examples < 100)
    @given(steps=STEPS)
    def check(steps: list[tuple[str, str, int]]) -> None:
        async def program() -> None:
            [layer] = make_layers(redis_server.url, **OPTIONS)
            async with layer:
                await run(layer, steps)

        trio.run(program)

    check()
