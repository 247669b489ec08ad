"""The queue of a session: the messages it keeps, and for how long."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from trio_channels.topics.long_polling.outgoing import Outgoing

MOST = 100


def filled(count: int, most: int = MOST) -> Outgoing:
    """A queue of messages of ten characters, none of which was sent."""
    outgoing = Outgoing(most)
    for number in range(1, count + 1):
        outgoing.put(f"{number:10}")
    return outgoing


def numbers(messages: list[str | bytes]) -> list[int]:
    return [int(message) for message in messages]


def test_messages_behind_a_number() -> None:
    outgoing = filled(5)
    messages, last = outgoing.send_after(2)
    assert (numbers(messages), last) == ([3, 4, 5], 5)
    assert outgoing.send_after(5) == ([], 5)
    assert len(outgoing) == 5


def test_message_that_was_sent_stays_until_it_is_acknowledged() -> None:
    outgoing = filled(5)
    outgoing.send_after(0)
    assert outgoing.acknowledge(3)
    assert numbers(outgoing.send_after(3)[0]) == [4, 5]
    assert outgoing.size == 20


def test_only_messages_that_were_sent_can_be_acknowledged() -> None:
    outgoing = filled(5)
    assert not outgoing.acknowledge(1)
    outgoing.send_after(0)
    outgoing.put("more")
    assert not outgoing.acknowledge(6)
    assert len(outgoing) == 6


def test_number_of_a_message_that_has_gone() -> None:
    outgoing = filled(5)
    outgoing.send_after(0)
    outgoing.acknowledge(3)
    assert not outgoing.acknowledge(2)
    assert outgoing.acknowledge(3)
    assert outgoing.acknowledge(5)


def test_messages_that_were_sent_make_room() -> None:
    outgoing = filled(10)
    assert outgoing.is_full
    outgoing.send_after(0)
    assert not outgoing.is_full
    outgoing.put("x" * 35)
    assert outgoing.size == 95
    assert not outgoing.acknowledge(3)
    assert outgoing.acknowledge(4)


def test_messages_of_a_stream_that_begins_anew_stay() -> None:
    outgoing = filled(5)
    outgoing.send_after(0)
    assert outgoing.resume(1)
    assert (outgoing.unsent, outgoing.is_full) == (4, False)
    outgoing.put(f"{6:70}")
    assert outgoing.is_full
    assert numbers(outgoing.send_after(1)[0]) == [2, 3, 4, 5, 6]
    assert not outgoing.is_full
    assert not outgoing.resume(7)
    assert outgoing.unsent == 0


def test_messages_that_were_not_sent_are_never_dropped() -> None:
    outgoing = filled(30)
    assert (len(outgoing), outgoing.unsent, outgoing.is_full) == (30, 30, True)
    assert numbers(outgoing.take()) == list(range(1, 31))
    assert (len(outgoing), outgoing.size, outgoing.unsent) == (0, 0, 0)


class Streams(RuleBasedStateMachine):
    """A client whose streams are cut at any place gets each message once, or is told that it cannot go on."""

    def __init__(self) -> None:
        super().__init__()
        self.outgoing = Outgoing(MOST)
        self.put_so_far = 0
        self.got: list[int] = []
        self.under_way: list[int] = []
        self.is_lost = False

    @rule(size=st.integers(10, 60))
    def put(self, size: int) -> None:
        if not self.outgoing.is_full:
            self.put_so_far += 1
            self.outgoing.put(f"{self.put_so_far:{size}}")

    @rule()
    def read(self) -> None:
        last = self.under_way[-1] if self.under_way else len(self.got)
        if not self.is_lost:
            self.under_way += numbers(self.outgoing.send_after(last)[0])

    @rule(count=st.integers(0, 5))
    def arrive(self, count: int) -> None:
        self.got += self.under_way[:count]
        del self.under_way[:count]

    @rule()
    def acknowledge(self) -> None:
        self.outgoing.acknowledge(len(self.got))

    @rule()
    def cut(self) -> None:
        self.under_way = []
        self.is_lost = self.is_lost or not self.outgoing.resume(len(self.got))

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert self.got == list(range(1, len(self.got) + 1))
        assert len(self.outgoing) >= self.outgoing.unsent >= 0

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.outgoing.size < MOST + 60


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=30, stateful_step_count=30)
