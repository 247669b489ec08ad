"""A member that joins a group with history: messages and gaps before, during and after its join."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_channels.layers.joining import Joining
from trio_channels.layers.mailbox import Mailbox
from trio_channels.layers.message import Counters, Envelope, Gap

HISTORY = "epoch"


def envelope(number: int) -> Envelope:
    return Envelope({"type": "x", "n": number}, trio.current_time() + 60, place=(HISTORY, number, 0))


def waiting(mailbox: Mailbox) -> list[int]:
    items: list[Any] = list(iter(mailbox.get_nowait, None))
    return [item["n"] for item in items]


def make_mailbox(**options: Any) -> Mailbox:
    return Mailbox("member", **{"capacity": 3, "overflow": "close", "counters": Counters(), **options})


async def test_double_after_the_join_is_dropped() -> None:
    settled: list[Mailbox] = []
    mailbox = make_mailbox()
    joining = Joining(mailbox, lambda _joining, member: settled.append(member))
    joining.begin((HISTORY, 2, 0), [envelope(1), envelope(2)], None)
    assert joining.put(envelope(2))
    assert settled == []
    assert joining.put(envelope(3))
    assert settled == [mailbox]
    assert waiting(mailbox) == [1, 2, 3]


async def test_gap_after_the_join_stays_in_its_place() -> None:
    mailbox = make_mailbox()
    joining = Joining(mailbox, lambda _joining, _member: None)
    joining.begin((HISTORY, 1, 0), [envelope(1)], None)
    joining.put_gap(Gap(None, "Redis was away"))
    joining.put(envelope(2))
    first, gap, last = list(iter(mailbox.get_nowait, None))
    assert (first["n"], gap, last["n"]) == (1, Gap(None, "Redis was away"), 2)  # type: ignore[index]


@pytest.mark.parametrize("ended", ["closed", "overflowed"])
async def test_ended_mailbox_takes_no_missed_messages(ended: str) -> None:
    mailbox = make_mailbox(capacity=1)
    if ended == "closed":
        mailbox.close()
        expected = []
    else:
        assert mailbox.put(envelope(1))
        assert not mailbox.put(envelope(2))
        expected = [1]
    before = mailbox.statistics().waiting
    mailbox.replay([envelope(3), envelope(4)])
    assert mailbox.statistics().waiting == before == len(expected)
