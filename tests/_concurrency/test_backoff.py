"""Delays between attempts."""

from __future__ import annotations

import trio.testing

from trio_channels._concurrency.backoff import BackOff, delay_after


def test_delay_doubles_up_to_the_longest() -> None:
    assert [delay_after(failures, 0.5, 3.0) for failures in (1, 2, 3, 4, 5_000)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_jitter_takes_up_to_half_of_a_delay() -> None:
    back_off = BackOff(0.5, 30.0)
    for failures in range(1, 11):
        full = delay_after(failures, 0.5, 30.0)
        assert full / 2 <= back_off.next_delay() <= full


async def test_wait_sleeps_and_reset_starts_again(autojump_clock: trio.testing.MockClock) -> None:
    back_off = BackOff()

    async def pause() -> float:
        before = trio.current_time()
        await back_off.wait()
        return trio.current_time() - before

    for full in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0):
        assert full / 2 - 1e-9 <= await pause() <= full + 1e-9
    back_off.reset()
    assert await pause() <= 0.05 + 1e-9
