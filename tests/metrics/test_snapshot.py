"""Snapshots: their encoding, and their sum."""

from __future__ import annotations

from typing import Any

import pytest

from trio_channels._metrics.snapshot import Snapshot, decode, encode, lasting, latest, total

GAUGE, COUNTER = ("trio_channels_connections", ("websocket", "a/")), ("trio_channels_websocket_sent", ("a/",))
HISTOGRAM, START = ("trio_channels_event_loop_lag_seconds", ()), ("process_start_time_seconds", ())


def snapshot(gauge: float, counter: float, histogram: list[float], start: float) -> Snapshot:
    return {GAUGE: [gauge], COUNTER: [counter], HISTOGRAM: histogram, START: [start]}


ONE, OTHER = snapshot(2, 10, [1, 0, 0.5], 100), snapshot(3, 5, [0, 2, 1.5], 90)


def test_snapshot_survives_its_encoding() -> None:
    assert decode(encode(ONE)) == ONE


def test_sum_adds_up_but_the_start_is_the_first() -> None:
    assert total([ONE, OTHER]) == snapshot(5, 15, [1, 2, 2.0], 90)


def test_sum_changes_none_of_its_parts() -> None:
    one: Any = {COUNTER: [1.0]}
    total([one, one])[COUNTER][0] += 1
    assert one == {COUNTER: [1.0]}


def test_counters_outlast_their_process() -> None:
    assert lasting(ONE) == {COUNTER: [10], HISTOGRAM: [1, 0, 0.5]}


@pytest.mark.parametrize("now", [{}, {COUNTER: [3.0], HISTOGRAM: [0.0, 0.0, 0.0]}])
def test_part_that_has_ended_takes_no_counter_with_it(now: Snapshot) -> None:
    assert latest(ONE, now) == {COUNTER: [10], HISTOGRAM: [1, 0, 0.5]}


def test_later_snapshot_counts() -> None:
    later = snapshot(0, 12, [4, 0, 0.6], 100)
    assert latest(ONE, later) == later
