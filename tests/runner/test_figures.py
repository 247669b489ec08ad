"""The figures of several processes: frames, questions, and children that die or stay silent."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from trio_channels._metrics.snapshot import Snapshot, decode
from trio_channels.runner.figures import SNAPSHOT, SUM, Figures, Frames, Reporter
from trio_channels.runner.lifeline import Lifeline

COUNTER, GAUGE = ("trio_channels_threads_calls", ()), ("trio_channels_threads_waiting", ())
STATES = {state: ("trio_channels_processes", (state,)) for state in ("answering", "silent")}


def pair() -> tuple[trio.SocketStream, Lifeline]:
    ours, theirs = socket.socketpair()
    return trio.SocketStream(trio.socket.from_stdlib_socket(ours)), Lifeline(theirs.detach())


@asynccontextmanager
async def child(figures: Figures, snapshot: Snapshot | None) -> AsyncIterator[tuple[Lifeline, Reporter]]:
    """A child with these figures; None: it does not answer."""
    stream, lifeline = pair()
    reporter = Reporter(stream)
    figures.add(reporter)
    async with stream, lifeline, trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run, figures)
        if snapshot is not None:
            nursery.start_soon(lifeline.wait_closed, lambda: snapshot)
        yield lifeline, reporter
        nursery.cancel_scope.cancel()


async def test_child_is_told_the_sum() -> None:
    figures = Figures()
    async with child(figures, {COUNTER: [1.0], GAUGE: [2.0]}) as (one, _), child(figures, {COUNTER: [10.0]}):
        assert decode(await one.sum()) == {
            COUNTER: [11.0],
            GAUGE: [2.0],
            STATES["answering"]: [2.0],
            STATES["silent"]: [0.0],
        }


async def test_silent_child_counts_with_its_last_counters(autojump_clock: MockClock) -> None:
    figures = Figures()
    async with child(figures, {COUNTER: [1.0]}) as (one, _), child(figures, None) as (other, reporter):
        await other.report_last({COUNTER: [5.0], GAUGE: [7.0]})
        while not reporter.last:
            await trio.lowlevel.checkpoint()
        assert decode(await one.sum()) == {
            COUNTER: [6.0],
            STATES["answering"]: [1.0],
            STATES["silent"]: [1.0],
        }


async def test_counters_of_a_child_that_has_ended_stay() -> None:
    figures = Figures()
    async with child(figures, {COUNTER: [1.0]}) as (one, _):
        async with child(figures, {COUNTER: [5.0], GAUGE: [7.0]}) as (_, other):
            await figures.sum()
            figures.remove(other)
        assert decode(await one.sum())[COUNTER] == [6.0]
        assert GAUGE not in await figures.sum()


async def test_child_that_ends_while_it_is_asked_counts_once(autojump_clock: MockClock) -> None:
    figures = Figures()
    async with child(figures, None) as (other, reporter):
        await other.report_last({COUNTER: [5.0]})
        while not reporter.last:
            await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(figures.sum)
            await trio.testing.wait_all_tasks_blocked()
            figures.remove(reporter)
        assert (await figures.sum())[COUNTER] == [5.0]


async def test_parent_that_does_not_answer_is_an_error(autojump_clock: MockClock) -> None:
    stream, lifeline = pair()
    async with stream, lifeline:
        with pytest.raises(trio.TooSlowError):
            await lifeline.sum()


async def test_answer_that_comes_too_late_is_dropped(autojump_clock: MockClock) -> None:
    figures = Figures()
    async with child(figures, None) as (other, reporter):
        assert not await reporter.ask()
        await other._frames.send(SNAPSHOT, 1, b"\x90")
        await other.report_last({COUNTER: [1.0]})
        while not reporter.last:
            await trio.lowlevel.checkpoint()


async def test_frame_in_pieces_is_put_together() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    frames, sent = Frames(theirs), Frames(ours)  # type: ignore[arg-type]
    await sent.send(SUM, 3, b"content")
    await sent.send(SNAPSHOT, 4)
    data = await theirs.receive_some()
    async with trio.open_nursery() as nursery:

        async def drip() -> None:
            for byte in data:
                await ours.send_all(bytes([byte]))
            await ours.aclose()

        nursery.start_soon(drip)
        assert [await frames.receive() for _ in range(3)] == [(SUM, 3, b"content"), (SNAPSHOT, 4, b""), None]


async def test_frame_to_a_peer_that_is_gone_is_dropped() -> None:
    stream, lifeline = pair()
    await stream.aclose()
    async with lifeline:
        for _ in range(3):
            await lifeline.report_last({COUNTER: [1.0]})
        await lifeline.wait_closed()
