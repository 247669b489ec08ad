"""The relay's queries: the order that follows the commits, and leases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import hypothesis
import pytest
from django.db import connections, transaction
from django.db.models.functions import Now
from hypothesis import strategies

from trio_channels import outbox
from trio_channels.outbox.models import OutboxMessage, RelayLease
from trio_channels.outbox.store import Store


def store(lease: float = 60, batch: int = 100) -> Store:
    return Store("default", lease=lease, batch=batch)


def send(group: str, n: int) -> None:
    outbox.group_send(group, {"type": "t", "n": n})


def texts(rows: list[OutboxMessage]) -> list[int]:
    return [bytes(row.message)[-1] for row in rows]


class Writer:
    """A thread with a connection of its own, which runs one function after the other."""

    def __init__(self) -> None:
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._next: Callable[[], object] | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                self._go.acquire()
                if self._next is None:
                    return
                self._next()
                self._done.release()
        finally:
            connections.close_all()

    def __call__(self, function: Callable[..., object], *arguments: Any) -> None:
        self._next = lambda: function(*arguments)
        self._go.release()
        assert self._done.acquire(timeout=60)

    def end(self) -> None:
        self._next = None
        self._go.release()
        self._thread.join()


def test_row_that_commits_late_is_sent_late_and_not_skipped(postgres_database: Any) -> None:
    early, late, relay = Writer(), Writer(), store()
    block = transaction.atomic()
    try:
        late(block.__enter__)
        late(send, "g", 1)  # the lower id
        early(send, "g", 2)
        rows = relay.claim()
        assert texts(rows) == [2]
        relay.delete(rows)
        assert relay.claim() == []
        early(send, "g", 3)
        late(send, "g", 4)
        late(block.__exit__, None, None, None)
        rows = relay.claim()
        assert texts(rows) == [1, 3, 4]
    finally:
        early.end()
        late.end()


Step = tuple[int, str]


@pytest.mark.slow
@hypothesis.settings(max_examples=25, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    steps=strategies.lists(
        strategies.tuples(
            strategies.integers(0, 2), strategies.sampled_from(["begin", "send", "send", "commit", "undo", "relay"])
        ),
        max_size=30,
    )
)
def test_any_interleaving_sends_what_commits_in_order(postgres_database: Any, steps: list[Step]) -> None:
    """Three writers; the model says which rows must be sent, and behind which others."""
    OutboxMessage.objects.all().delete()
    writers, relay = [Writer() for _ in range(3)], store()
    blocks: dict[int, Any] = {}
    written: dict[int, list[int]] = {0: [], 1: [], 2: []}
    committed: list[int] = []
    begun_after: dict[int, set[int]] = {}  # each row, and the rows that were committed before it was written
    sent: list[int] = []
    n = 0
    try:
        for who, what in [*steps, *((who, "commit") for who in range(3)), (0, "relay")]:
            if what == "begin" and who not in blocks:
                blocks[who] = transaction.atomic()
                writers[who](blocks[who].__enter__)
            elif what == "send":
                n += 1
                begun_after[n] = set(committed)
                writers[who](send, "g", n)
                if who in blocks:
                    written[who].append(n)
                else:
                    committed.append(n)
            elif what == "commit" and who in blocks:
                writers[who](blocks.pop(who).__exit__, None, None, None)
                committed += written[who]
                written[who] = []
            elif what == "undo" and who in blocks:
                error = ZeroDivisionError()
                writers[who](blocks.pop(who).__exit__, ZeroDivisionError, error, None)
                written[who] = []
            elif what == "relay":
                rows = relay.claim()
                sent += texts(rows)
                relay.delete(rows)
                relay.release()
    finally:
        for writer in writers:
            writer.end()
    assert sorted(sent) == sorted(committed)
    places = {number: place for place, number in enumerate(sent)}
    for number in sent:
        assert all(places[other] < places[number] for other in begun_after[number])


def test_other_relay_gets_no_bucket_that_is_taken(database: Any) -> None:
    first, second = store(), store()
    send("g", 1)
    assert texts(first.claim()) == [1]
    assert second.claim() == []
    assert texts(first.claim()) == [1]
    first.release()
    assert texts(second.claim()) == [1]
    assert first.claim() == []


def test_other_relay_gets_the_other_groups(database: Any) -> None:
    first, second = store(), store(batch=2)
    send("g", 1)
    first.claim()
    for n in range(2, 10):  # more than the second relay takes
        send("g", n)
    send("h", 10)
    assert texts(second.claim()) == [10]
    assert texts(first.claim()) == list(range(1, 10))


def test_lease_of_a_dead_relay_ends(database: Any) -> None:
    dead, other = store(), store()
    send("g", 1)
    dead.claim()
    RelayLease.objects.update(until=Now() - timedelta(seconds=0.001))
    assert texts(other.claim()) == [1]
    assert dead.claim() == []


def test_batch_is_the_beginning_of_each_group(database: Any) -> None:
    for n in range(6):
        send(f"g{n % 2}", n)
    assert texts(store(batch=4).claim()) == [0, 1, 2, 3]


def test_group_waits_for_its_row_that_is_tried_again(database: Any) -> None:
    relay = store()
    for n in range(4):
        send(f"g{n % 2}", n)
    row = relay.claim()[0]
    relay.fail(row, "x" * 2_000, 60)
    assert texts(relay.claim()) == [1, 3]
    row.refresh_from_db()
    assert (row.attempts, row.error) == (1, "x" * 1_000)
    relay.postpone([row], 0)
    assert texts(relay.claim()) == [0, 1, 2, 3]
    relay.set_aside(row, "bad")
    assert texts(relay.claim()) == [1, 2, 3]
    row.refresh_from_db()
    assert (row.attempts, row.error, row.set_aside_at is None) == (2, "bad", False)


def test_claims_at_the_same_time_share_no_group(database: Any) -> None:
    for n in range(40):
        send(f"g{n % 10}", n)
    relays, claimed = [store() for _ in range(4)], [list[int]() for _ in range(4)]
    together = threading.Barrier(4)

    def claim(place: int) -> None:
        try:
            together.wait(60)
            claimed[place] = texts(relays[place].claim())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=claim, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = sorted(number for numbers in claimed for number in numbers)
    assert everything == list(range(40))


def test_store_says_where_it_is() -> None:
    assert repr(store()) == "<Store of the outbox in 'default'>"


@pytest.mark.parametrize("zone", [True, False])
def test_times_are_those_of_the_database(database: Any, settings: Any, zone: bool) -> None:
    settings.USE_TZ = zone
    settings.TIME_ZONE = "Asia/Tokyo"
    first, second = store(), store()
    send("g", 1)
    row = first.claim()[0]
    first.release()
    second.postpone([row], 60)
    assert second.claim() == []
    second.postpone([row], -1)
    assert texts(second.claim()) == [1]
    assert first.claim() == []
    assert 0 <= (outbox.status().oldest or -1) < 60
