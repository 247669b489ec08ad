"""A thousand connections of every kind, cancelled anywhere: every block is left, and every table returns to empty."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from trio_channels._threads.database import thread_pool
from trio_channels.layers import InMemoryChannelLayer

from .storm import Record, storm

pytestmark = pytest.mark.faults

#: 200 storms of 1,000 connections take about two minutes on two cores, which is as long as a nightly test should.
#: Those without worker threads are the same each time; the others depend on when threads run.
STORMS = range(160)
STORMS_WITH_THREADS = range(160, 200)

ASYNC = {"consumer": 500, "endpoint": 300, "request": 200}
MIXED = {"consumer": 300, "endpoint": 200, "request": 100, "borrower": 200, "sync": 200}


@pytest.fixture(autouse=True)
def collected_once() -> Iterator[None]:
    """Collect garbage after each storm, not in it: a third quicker, and a coroutine never awaited shows in its test."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()


def check(seed: int, records: list[Record], layer: InMemoryChannelLayer) -> None:
    bad = [(record, faults) for record in records if (faults := record.faults())]
    assert not bad, f"seed {seed}: {len(bad)} connections did not end as they should, the first: {bad[0]}"
    seen = layer.statistics()
    assert (seen.channels, seen.groups, seen.memberships, seen.waiting) == (0, 0, 0, 0), f"seed {seed}"
    assert seen.dropped == 0, f"seed {seed}: nobody was slow"


async def seeded_storm(seed: int) -> tuple[list[Record], InMemoryChannelLayer]:
    trio._core._run._r.seed(seed)  # pytest-trio makes the order of tasks depend on this seed only
    return await storm(random.Random(seed), ASYNC)


@pytest.mark.parametrize("seed", STORMS)
async def test_whatever_is_cancelled_ends_and_leaves_nothing(seed: int, mock_clock: MockClock) -> None:
    records, layer = await seeded_storm(seed)
    check(seed, records, layer)


@pytest.mark.parametrize("seed", STORMS_WITH_THREADS)
async def test_whatever_is_cancelled_gives_back_its_worker_thread(seed: int) -> None:
    records, layer = await storm(random.Random(seed), MIXED, some_stay=False)
    check(seed, records, layer)
    pool = thread_pool().statistics()
    assert pool.calls > 0
    assert (pool.leased, pool.waiting) == (0, 0), f"seed {seed}"


async def test_storm_is_the_same_for_the_same_seed(mock_clock: MockClock) -> None:
    first, _ = await seeded_storm(7)
    again, _ = await seeded_storm(7)
    assert [(record.steps, record.log) for record in first] == [(record.steps, record.log) for record in again]


async def test_storms_of_different_seeds_differ(mock_clock: MockClock) -> None:
    first, _ = await seeded_storm(7)
    other, _ = await seeded_storm(8)
    assert [record.log for record in first] != [record.log for record in other]


async def test_storm_cancels_at_every_stage_of_a_connection(mock_clock: MockClock) -> None:
    records, _ = await seeded_storm(1)
    cut = [record for record in records if record.kind == "consumer" and record.scope.cancelled_caught]
    last_words = {
        next((word for word in reversed(record.log) if word[0] == "+" and word != "+disconnect"), "none")
        for record in cut
    }
    assert {"+connect", "+background", "+receive", "+handler"} <= last_words
