"""Mailboxes against a model; and waiting tasks, logging and closing, which the model leaves out."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from typing import Any, get_args

import pytest
import trio
import trio.testing
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trio_channels.exceptions import InvalidChannelLayerError
from trio_channels.layers.base import Gap, Overflow
from trio_channels.layers.mailbox import LOG_INTERVAL, Mailbox
from trio_channels.layers.message import Counters, Envelope

NEVER = 1e12  # a Trio time that these tests never reach


def make(
    capacity: int = 3,
    overflow: Overflow = "close",
    counters: Counters | None = None,
    ring: Callable[[], None] | None = None,
    offer: Callable[[Envelope], bool] | None = None,
) -> Mailbox:
    return Mailbox("box", capacity=capacity, overflow=overflow, counters=counters or Counters(), ring=ring, offer=offer)


def envelope(number: int, expires_at: float = NEVER) -> Envelope:
    return Envelope({"n": number}, expires_at)


def drain(mailbox: Mailbox) -> list[int | Gap]:
    """The waiting items: a message as its number, or a gap."""
    items: list[int | Gap] = []
    while (item := mailbox.get_nowait()) is not None:
        items.append(item if isinstance(item, Gap) else item["n"])
    return items


# -- the model --------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """A message that was put in; or a gap that was put in, which has no number."""

    number: int | None
    expires_at: float = 0
    lost_by: str | None = None  # None while the message waits
    lost: int | None = 1


class MailboxMachine(RuleBasedStateMachine):
    """A mailbox beside a plain list of messages and their fates; the clock is a number.

    The list holds the messages and gaps of which the owner has not heard yet, in the order in which they were put in.
    """

    @initialize(capacity=st.integers(1, 4), overflow=st.sampled_from(get_args(Overflow)))
    def start(self, capacity: int, overflow: Overflow) -> None:
        self.now = 0.0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(trio, "current_time", lambda: self.now)
        self.counters = Counters()
        self.mailbox = make(capacity, overflow, self.counters)
        self.rows: list[Row] = []
        self.put = self.delivered = self.told = self.refused = 0

    def teardown(self) -> None:
        if not hasattr(self, "patch"):
            return
        while self.rows:
            self.get()
        assert self.mailbox.get_nowait() is None
        assert self.delivered + self.told + self.refused == self.put
        self.patch.undo()

    def waiting(self) -> list[Row]:
        return [row for row in self.rows if row.lost_by is None]

    def expire(self) -> None:
        # From the front only: an expired message behind a waiting one is noticed when its turn comes.
        for row in self.waiting():
            if row.expires_at > self.now:
                break
            row.lost_by = "expired"

    @rule(seconds=st.integers(1, 5))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(lifetime=st.integers(1, 8))
    def put_one(self, lifetime: int) -> None:
        row = Row(self.put, self.now + lifetime)
        self.put += 1
        mailbox = self.mailbox
        full = mailbox.overflowed or len(self.waiting()) >= mailbox.capacity
        if full and not mailbox.overflowed:
            self.expire()
            full = len(self.waiting()) >= mailbox.capacity
        accepted = not full or mailbox.overflow == "drop_oldest"
        if full and mailbox.overflow == "drop_oldest":
            self.waiting()[0].lost_by = "overflow"
        if full and mailbox.overflow == "drop_newest":
            row.lost_by = "overflow"
        if full and mailbox.overflow == "close":
            self.refused += 1
        else:
            self.rows.append(row)
        assert mailbox.put(Envelope({"n": row.number}, row.expires_at)) is accepted

    @rule(lost=st.one_of(st.none(), st.integers(0, 3)))
    def backend_reports_a_gap(self, lost: int | None) -> None:
        self.rows.append(Row(None, lost_by="backend", lost=lost))
        self.mailbox.put_gap(Gap(lost, "backend"))

    @rule()
    def flush(self) -> None:
        waiting = self.waiting()
        assert self.mailbox.clear() == len(waiting)
        self.mailbox.put_gap(Gap(len(waiting), "flushed"))
        self.rows.append(Row(None, lost_by="flushed", lost=0))
        for row in waiting:
            row.lost_by = "flushed"

    @rule()
    def get(self) -> None:
        """Take the gaps that are next, in whatever order, and the message after them."""
        self.expire()
        gaps: dict[str, int | None] = {}
        while self.rows and (lost_by := self.rows[0].lost_by) is not None:
            row = self.rows.pop(0)
            before = gaps.get(lost_by, 0)
            gaps[lost_by] = None if row.lost is None or before is None else before + row.lost
            self.told += row.number is not None
        assert {self.mailbox.get_nowait() for _ in gaps} == {Gap(lost, lost_by) for lost_by, lost in gaps.items()}
        if self.rows:
            assert self.mailbox.get_nowait() == {"n": self.rows.pop(0).number}
            self.delivered += 1
        else:
            assert self.mailbox.get_nowait() is None

    @invariant()
    def nothing_is_lost_silently(self) -> None:
        if not hasattr(self, "mailbox"):
            return
        untold = sum(row.lost_by is not None and row.number is not None for row in self.rows)
        assert self.delivered + self.told + untold + self.refused + len(self.waiting()) == self.put
        assert self.mailbox.statistics().waiting == len(self.waiting()) <= self.mailbox.capacity
        assert self.counters.delivered == self.delivered
        assert (self.refused > 0) is self.mailbox.overflowed


TestMailboxModel = MailboxMachine.TestCase
TestMailboxModel.settings = settings(max_examples=150, stateful_step_count=40)


# -- gaps -------------------------------------------------------------------------------------------------------------


async def test_adjacent_gaps_of_one_reason_are_one() -> None:
    mailbox = make()
    for _ in range(1000):
        mailbox.put_gap(Gap(2, "backend"))
    mailbox.put(envelope(1))
    for _ in range(1000):
        mailbox.put_gap(Gap(1, "backend"))
    assert len(mailbox._entries) == 2
    assert drain(mailbox) == [Gap(2000, "backend"), 1, Gap(1000, "backend")]


async def test_gap_of_unknown_size_stays_so() -> None:
    mailbox = make()
    mailbox.put_gap(Gap(2, "backend"))
    mailbox.put_gap(Gap(None, "backend"))
    mailbox.put_gap(Gap(2, "backend"))
    assert drain(mailbox) == [Gap(None, "backend")]


async def test_dropping_the_oldest_keeps_a_backends_gap_apart() -> None:
    mailbox = make(capacity=1, overflow="drop_oldest")
    mailbox.put_gap(Gap(None, "backend"))
    mailbox.put(envelope(1))
    mailbox.put(envelope(2))
    assert drain(mailbox) == [Gap(None, "backend"), Gap(1, "overflow"), 2]


async def test_gaps_do_not_take_the_place_of_messages() -> None:
    mailbox = make(capacity=2)
    mailbox.put(envelope(1))
    mailbox.put_gap(Gap(1, "backend"))
    assert mailbox.put(envelope(2))
    assert drain(mailbox) == [1, Gap(1, "backend"), 2]


async def test_expired_messages_behind_a_gap_make_room(mock_clock: trio.testing.MockClock) -> None:
    mailbox = make(capacity=1)
    mailbox.put_gap(Gap(1, "backend"))
    mailbox.put(envelope(1, trio.current_time() + 1))
    mock_clock.jump(1)
    assert not mailbox.full
    assert drain(mailbox) == [Gap(1, "backend"), Gap(1, "expired")]


async def test_message_takes_the_place_of_one_that_has_expired(mock_clock: trio.testing.MockClock) -> None:
    mailbox = make(capacity=1)
    mailbox.put(envelope(1, trio.current_time() + 1))
    mock_clock.jump(1)
    assert mailbox.put(envelope(2))
    assert drain(mailbox) == [Gap(1, "expired"), 2]


def test_gap_becomes_an_event() -> None:
    assert Gap(None, "flushed").as_event() == {"type": "channel.layer.gap", "lost": None, "reason": "flushed"}


# -- overflow ---------------------------------------------------------------------------------------------------------


async def test_unknown_overflow_rule_is_refused() -> None:
    with pytest.raises(InvalidChannelLayerError, match="'drop-oldest'"):
        make(overflow="drop-oldest")  # type: ignore[arg-type]


async def test_owner_is_called_once_when_its_mailbox_overflows() -> None:
    mailbox, calls = make(capacity=1), []
    mailbox.on_overflow = lambda: calls.append(mailbox.overflowed)
    for number in range(4):
        mailbox.put(envelope(number))
    assert calls == [True]
    assert "overflowed" in repr(mailbox)


async def test_after_an_overflow_the_owner_reads_no_sequence_with_a_hole() -> None:
    mailbox = make(capacity=2)
    for number in range(3):
        mailbox.put(envelope(number))
    assert mailbox.get_nowait() == {"n": 0}
    assert mailbox.full
    assert not mailbox.put(envelope(3))
    assert drain(mailbox) == [1]


async def test_losses_are_logged_once_a_minute(
    mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    mailbox = make(capacity=1, overflow="drop_oldest")
    with caplog.at_level(logging.WARNING, "trio_channels.mailbox"):
        for number in range(10):
            mailbox.put(envelope(number))
        mock_clock.jump(LOG_INTERVAL)
        mailbox.put(envelope(10))
    assert [record.args[3] for record in caplog.records] == [1, 10]  # type: ignore[index]
    assert "dropping the oldest" in caplog.text


# -- waiting ----------------------------------------------------------------------------------------------------------


async def test_what_is_handed_to_a_waiting_task_does_not_count_as_waiting() -> None:
    mailbox, got = make(capacity=1, overflow="drop_oldest"), []

    async def receive() -> None:
        got.append(await mailbox.get())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        assert mailbox.waited_for
        mailbox.put(envelope(1))
        mailbox.put(envelope(2))
    assert got == [{"n": 1}]
    assert drain(mailbox) == [2]
    assert mailbox.statistics().dropped == 0


async def test_task_that_has_waited_longest_is_served_first() -> None:
    mailbox, got = make(), []

    async def receive(name: str) -> None:
        item = await mailbox.get()
        got.append((name, item if isinstance(item, Gap) else item["n"]))

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(receive, name)
            await trio.testing.wait_all_tasks_blocked()
        mailbox.put(envelope(1))
        mailbox.put_gap(Gap(1, "backend"))
        mailbox.put(envelope(2))
    assert sorted(got) == [("a", 1), ("b", Gap(1, "backend")), ("c", 2)]


async def test_cancelled_wait_leaves_the_next_message_to_others() -> None:
    mailbox = make()

    async def receive() -> None:
        await mailbox.get()

    with trio.move_on_after(0):
        await receive()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not mailbox.waited_for
    mailbox.put(envelope(1))
    assert drain(mailbox) == [1]


@pytest.mark.parametrize("leaving", [["a"], ["b"], ["a", "b"], ["b", "a"], ["c", "a"]])
async def test_of_several_who_wait_any_may_give_up(leaving: list[str]) -> None:
    mailbox, got = make(), []
    scopes = {name: trio.CancelScope() for name in "abcd"}

    async def receive(name: str) -> None:
        with scopes[name]:
            got.append((name, await mailbox.get()))

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(receive, name)
            await trio.testing.wait_all_tasks_blocked()
        for name in leaving:
            scopes[name].cancel()
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(receive, "d")
        await trio.testing.wait_all_tasks_blocked()
        staying = [name for name in "abcd" if name not in leaving]
        for number in range(len(staying)):
            mailbox.put(envelope(number))
            await trio.testing.wait_all_tasks_blocked()
    assert got == [(name, {"n": number}) for number, name in enumerate(staying)]
    assert not mailbox.waited_for


async def test_who_waits_is_who_awaits_and_only_then() -> None:
    mailbox, got = make(), []
    receiving = mailbox.get()
    assert not mailbox.waited_for
    mailbox.put(envelope(1))
    mailbox.put(envelope(2))

    async def receive() -> None:
        got.append(await receiving)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
    assert got == [{"n": 1}]
    assert drain(mailbox) == [2]


async def test_get_is_a_checkpoint_where_a_message_waits() -> None:
    mailbox = make()
    mailbox.put(envelope(1))
    with trio.testing.assert_checkpoints():
        assert await mailbox.get() == {"n": 1}


async def test_closing_ends_waiting_tasks_and_accepts_no_more() -> None:
    rings: list[None] = []
    mailbox = make(ring=lambda: rings.append(None))

    async def receive() -> None:
        with pytest.raises(trio.EndOfChannel):
            await mailbox.get()

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        mailbox.close()
    mailbox.close()
    assert not mailbox.put(envelope(1))
    assert rings == []
    await receive()


async def test_closing_forgets_what_waited() -> None:
    mailbox = make()
    mailbox.put(envelope(1))
    mailbox.put_gap(Gap(1, "backend"))
    mailbox.close()
    assert mailbox.get_nowait() is None
    assert mailbox.statistics().waiting == 0


async def test_each_owner_gets_a_copy_of_a_shared_message() -> None:
    shared, first, second = envelope(1), make(), make()
    first.put(shared)
    second.put(shared)
    item = first.get_nowait()
    assert isinstance(item, dict)
    item["n"] = 2
    assert drain(second) == [1]


async def test_envelope_gives_a_copy_each_time() -> None:
    def keep() -> Generator[list[Any], Any, None]:
        items: list[Any] = []
        while True:
            items.append((yield items))

    async def keep_too() -> AsyncGenerator[list[Any], Any]:
        items: list[Any] = []
        while True:
            items.append((yield items))

    shared, generator = envelope(1), keep()
    next(generator)
    assert shared.send(generator) == [{"n": 1}]
    async with contextlib.aclosing(keep_too()) as another:
        await anext(another)
        assert await shared.asend(another) == [{"n": 1}]
    assert shared.unwrap() == shared.unwrap() == {"n": 1}
    assert shared.unwrap() is not shared.unwrap()


async def test_envelopes_are_equal_to_nothing_but_themselves() -> None:
    assert len({envelope(1), envelope(1), envelope(2)}) == 3
    assert repr(Envelope({"type": "chat.message"}, NEVER)) == "<Envelope 'chat.message'>"


async def test_repr_tells_the_state() -> None:
    mailbox = make(overflow="drop_newest")
    for number in range(4):
        mailbox.put(envelope(number))
    assert repr(mailbox) == "<Mailbox box 3/3 waiting, 1 dropped>"


async def test_gap_rings() -> None:
    rings: list[None] = []
    mailbox = make(ring=lambda: rings.append(None))
    mailbox.put_gap(Gap(1, "backend"))
    assert len(rings) == 1


async def test_what_is_handed_to_a_waiting_task_does_not_ring() -> None:
    rings: list[None] = []
    mailbox, got = make(ring=lambda: rings.append(None)), []

    async def receive() -> None:
        got.append(await mailbox.get())

    for item in (envelope(1), Gap(1, "backend")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            if isinstance(item, Gap):
                mailbox.put_gap(item)
            else:
                mailbox.put(item)
    assert got == [{"n": 1}, Gap(1, "backend")]
    assert rings == []


async def test_owner_that_takes_an_offer_finds_an_empty_box() -> None:
    taken: list[Envelope] = []
    counters = Counters()

    def take(offered: Envelope) -> bool:
        taken.append(offered)
        return True

    mailbox = make(counters=counters, offer=take)
    assert mailbox.put(envelope(1))
    assert [one.message for one in taken] == [{"n": 1}]
    assert counters.delivered == 1
    assert drain(mailbox) == []


async def test_nothing_is_offered_past_waiting_messages() -> None:
    offered: list[Envelope] = []

    def decline(envelope: Envelope) -> bool:
        offered.append(envelope)
        return False

    mailbox = make(offer=decline)
    mailbox.put(envelope(1))
    mailbox.put(envelope(2))
    assert len(offered) == 1
    assert drain(mailbox) == [1, 2]
    mailbox.put_gap(Gap(1, "backend"))
    mailbox.put(envelope(3))
    assert len(offered) == 1
    assert drain(mailbox) == [Gap(1, "backend"), 3]


async def test_owner_is_offered_nothing_after_the_first_loss() -> None:
    offered: list[Envelope] = []

    def decline(envelope: Envelope) -> bool:
        offered.append(envelope)
        return False

    mailbox = make(capacity=1, offer=decline)
    mailbox.put(envelope(1))
    mailbox.put(envelope(2))
    assert drain(mailbox) == [1]
    assert not mailbox.put(envelope(3))
    assert len(offered) == 1


async def test_second_asker_waits_for_the_next_message() -> None:
    mailbox = Mailbox("specific!x", capacity=10, overflow="close", counters=Counters())
    got: list[object] = []

    async def ask() -> None:
        got.append(await mailbox.get())

    mailbox.put(Envelope({"type": "one"}, trio.current_time() + 60))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert got == [{"type": "one"}]
        mailbox.put(Envelope({"type": "two"}, trio.current_time() + 60))
    assert got == [{"type": "one"}, {"type": "two"}]
