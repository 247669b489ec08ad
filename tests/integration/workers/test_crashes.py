"""Worker processes that are killed, stopped, or left without their Redis: no message is lost."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from ...redis_server import RedisServer, needs_redis
from .conftest import Workers
from .test_runworker import job, send

pytestmark = pytest.mark.faults


async def settled(workers: Workers) -> bool:
    """Whether nothing waits in Redis any more."""
    async with workers.layer() as layer:
        context = layer._work_context("jobs")
        return int(await context.pipeline.call("XLEN", context.stream)) == 0


async def test_killed_workers_messages_are_handled_once(workers: Workers, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    quick, slow = [*range(50), *range(60, 100)], range(50, 60)
    await send(workers, *(job("until", n, path=str(gate)) if n in slow else job("quick", n) for n in range(100)))
    first = workers.start("--concurrency", "10", "--claim-after", "1")
    # Then every handler is in the middle of a slow message, and everything before these has been acknowledged.
    await workers.until(lambda: set(slow) <= set(workers.numbers("begin")))
    code, _ = await trio.to_thread.run_sync(workers.end, first, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert set(workers.numbers("end")) < set(quick)
    gate.touch()
    second = workers.start("--concurrency", "10", "--claim-after", "1")
    await workers.until(lambda: len(workers.numbers("end")) >= 100)
    await workers.until(lambda: settled(workers))
    code, output = await trio.to_thread.run_sync(workers.end, second, signal.SIGTERM)
    assert code == 0, output
    assert sorted(workers.numbers("end")) == list(range(100))
    assert sorted(workers.numbers("begin")) == sorted([*range(100), *slow])
    assert "10 taken over" in output
    assert "message" in output
    assert "which is gone" in output


async def test_message_that_kills_workers_becomes_a_dead_letter(
    workers: Workers,
) -> None:
    await send(workers, job("kill", 0))
    options = ("--claim-after", "0.3", "--max-deliveries", "3")
    for _ in range(3):
        code, output = await trio.to_thread.run_sync(workers.end, workers.start(*options))
        assert code == -signal.SIGKILL, output
    await send(workers, job("quick", 1))
    last = workers.start(*options)
    await workers.until(lambda: settled(workers))
    code, output = await trio.to_thread.run_sync(workers.end, last, signal.SIGTERM)
    assert code == 0, output
    assert "is a dead letter now: it was delivered 3 times, and each time the worker died with it" in output
    assert (workers.numbers("begin"), workers.numbers("end")) == ([0, 0, 0, 1], [1])
    async with workers.layer() as layer:
        [letter] = await layer.work_queue("jobs").dead_letters()
    assert (letter.message, letter.deliveries) == (job("kill", 0), 3)
    assert letter.why == "the worker died or was stopped, each time"


async def test_stopped_worker_loses_its_message_and_says_so(workers: Workers, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    await send(workers, job("until", 0, path=str(gate)))
    # Long enough for a loaded machine: the other one must not count as dead.
    stopped = workers.start("--claim-after", "4")
    await workers.until(lambda: workers.numbers("begin") == [0])
    stopped.send_signal(signal.SIGSTOP)
    other = workers.start("--claim-after", "4")
    await workers.until(lambda: workers.numbers("begin") == [0, 0])
    stopped.send_signal(signal.SIGCONT)
    await trio.to_thread.run_sync(_read_until, stopped, "another worker has taken over message")
    gate.touch()
    await workers.until(lambda: settled(workers))
    await workers.until(lambda: len(workers.numbers("end")) == 2)
    for process, words in ((stopped, "0 handled, 0 failed, 0 running, 1 superseded"), (other, "1 handled, 0 failed")):
        code, output = await trio.to_thread.run_sync(workers.end, process, signal.SIGTERM)
        assert code == 0, output
        assert words in output


def _read_until(worker: Any, words: str) -> None:
    while words not in (line := worker.stdout.readline()):
        assert line, "the worker has ended"


@needs_redis
async def test_worker_outlives_its_redis_and_loses_nothing(tmp_path: Path) -> None:
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always")
    server.start()
    workers = Workers(tmp_path, server.url)
    try:
        gate = tmp_path / "gate"
        await send(workers, *(job("until", n, path=str(gate)) for n in range(5)), *(job("quick", n) for n in (5, 6, 7)))
        worker = workers.start("--concurrency", "5")
        await workers.until(lambda: len(workers.numbers("begin")) == 5)
        server.kill()
        gate.touch()
        await workers.until(lambda: len(workers.numbers("end")) == 5)
        await trio.to_thread.run_sync(server.start)
        await workers.until(lambda: settled(workers))
        code, output = await trio.to_thread.run_sync(workers.end, worker, signal.SIGTERM)
        assert code == 0, output
        assert sorted(workers.numbers("end")) == list(range(8))
        assert "the worker cannot reach Redis" in output
        assert "8 handled, 0 failed" in output
    finally:
        workers.close()
        server.close()
