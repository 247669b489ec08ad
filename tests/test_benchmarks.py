"""Every side of every benchmark does its work; how fast is not asserted here."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import multiprocessing.context
import os
import signal
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection

import pytest
import trio
import trio.testing

from benchmarks import _redis_receiver, p1_fan_out, p2_echo, p6_connect
from benchmarks.__main__ import workloads
from benchmarks._clients import wait_for_line
from benchmarks.harness import Comparison, Result, Side, Timing, Workload, main, run_side, table

from .redis_server import needs_redis

#: Each side of each workload, where its servers are.
SIDES = [
    pytest.param(
        workload,
        side,
        id=f"{workload.name}-{side}",
        marks=[needs_redis] if workload.name in ("p3_redis", "p13_history", "p13_presence") else [],
    )
    for workload in workloads()
    for side in workload.sides
]

#: What most sides import, as far as it can be imported without settings: once, in the process that all are forked from.
PRELOADED = (
    "benchmarks.__main__",
    "django.contrib.sessions.backends.db",
    "django.core.management",
    "trio_channels.generic.websocket",
    "trio_channels.server",
    "trio_channels.layers.redis",
    "channels.generic.websocket",
)


@pytest.fixture(scope="module")
def fork() -> multiprocessing.context.ForkServerContext:
    """Processes that are forked from one which has imported what takes long."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _try(module: str, side: str, results: Connection) -> None:
    found = importlib.import_module(f"benchmarks.{module}").WORKLOAD.sides[side]
    try:
        results.send((found.trial or found.run)(10))
    except BaseException:
        results.send(traceback.format_exc())


@pytest.mark.slow
@pytest.mark.parametrize(("workload", "side"), SIDES)
def test_side_does_all_its_work(workload: Workload, side: str, fork: multiprocessing.context.ForkServerContext) -> None:
    if missing := workload.sides[side].missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    results, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_try, args=(workload.name, side, theirs))
    process.start()
    theirs.close()
    try:
        assert results.poll(120), "it is stuck"
        timing = results.recv()
    finally:
        if process.is_alive() and process.pid is not None:
            with suppress(ProcessLookupError):  # it ends by itself just now
                os.kill(process.pid, signal.SIGINT)  # as Ctrl-C does: it may have servers, which it ends then
        process.join(30)
        process.kill()
        results.close()
    assert isinstance(timing, Timing), timing
    assert timing.operations > 0
    assert timing.us > 0


def test_side_runs_in_its_own_process_and_reports() -> None:
    line = run_side(p2_echo.WORKLOAD, "plain", 2)
    assert line["side"] == "plain"
    assert line["operations"] == 2
    assert line["us"] > 0
    assert line["cpu_us"] >= 0


@pytest.mark.parametrize("workload", workloads(), ids=lambda workload: workload.name)
def test_workload_compares_sides_that_it_has(workload: Workload) -> None:
    compared = {name for comparison in workload.comparisons for name in (comparison.ours, comparison.peer)}
    assert compared == set(workload.sides)


def _workload(comparison: Comparison, **needs: tuple[str, ...]) -> Workload:
    sides = {name: Side(lambda count: Timing(count, 1.0, 1.0), 1, needs.get(name, ())) for name in ("ours", "peer")}
    return Workload("made_up", "made up", "thing", sides, [comparison])


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    comparison = Comparison("all", "ours", "peer", faster=3)
    result = Result(_workload(comparison), comparison, ours=[1.0, 2.0, 10.0], peer=[4.0, 8.0, 20.0])
    assert result.ratios == [4.0, 4.0, 2.0]
    assert result.ratio == 4.0
    assert result.verdict == "met"


def test_target_for_the_time_of_ours_is_missed_from_above() -> None:
    comparison = Comparison("all", "ours", "peer", slower=1.6)
    result = Result(_workload(comparison), comparison, ours=[17.0], peer=[10.0])
    assert result.ratio == pytest.approx(1.7)
    assert result.verdict == "missed"


def test_table_has_the_target_beside_the_ratio() -> None:
    comparison = Comparison("all", "ours", "peer", faster=3)
    text = table([Result(_workload(comparison), comparison, ours=[1.0], peer=[4.0])])
    assert text.splitlines()[1].split() == ["made", "up", "all", "1.00", "4.00", *["4.00x"] * 3, ">=", "3x", "met"]


def test_result_line_tells_the_versions_and_the_date() -> None:
    comparison = Comparison("all", "ours", "peer", faster=3)
    line = json.loads(Result(_workload(comparison), comparison, ours=[1.0], peer=[4.0]).as_json())
    assert line["ratio"] == 4.0
    assert line["date"].endswith("+00:00")
    assert {"python", "trio", "django", "channels", "asgiref"} <= line["versions"].keys()


def test_comparison_without_its_peer_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = Comparison("all", "ours", "peer", faster=3)
    status = main([_workload(comparison, peer=("no_such_module",))], ["--rounds", "1"])
    assert status == 0
    shown = capsys.readouterr()
    assert "left out 'all': not installed: no_such_module" in shown.err
    assert len(shown.out.splitlines()) == 1


def test_fan_out_that_lost_a_message_fails() -> None:
    clients = [p1_fan_out.Client(p1_fan_out.Audience(2)) for _ in range(2)]
    clients[0].take({"type": "websocket.send", "text": p1_fan_out.TEXT})
    with pytest.raises(RuntimeError, match="1 members did not get 1 messages; the first of them got 0"):
        p1_fan_out.verify(clients, 1)


def test_echo_of_another_message_fails() -> None:
    with pytest.raises(RuntimeError, match="expected 'one' to be sent back"):
        p2_echo.verify({"type": "websocket.send", "text": "two"}, "one")


def test_receiver_fails_if_a_message_is_lost_or_comes_again() -> None:
    reports: list[str] = []
    take = _redis_receiver.Audience(2, lambda: reports.append("a portion")).member()
    take(_redis_receiver.message(0, 0))
    take(_redis_receiver.message(1, 0))
    assert reports == ["a portion"]
    with pytest.raises(RuntimeError, match="expected number 1 of sender 0; got 2"):
        take(_redis_receiver.message(0, 2))
    with pytest.raises(RuntimeError, match="expected number 1 of sender 1; got 0"):
        take(_redis_receiver.message(1, 0))


def test_connection_that_was_not_accepted_fails() -> None:
    with pytest.raises(RuntimeError, match=r"expected one websocket\.accept and no other message; got \[\]"):
        p6_connect.Visit("sessionid=none", None).verify()


async def test_what_clients_say_may_come_in_pieces() -> None:
    clients, server = trio.testing.memory_stream_one_way_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_line, server, b"done\n")
        for piece in (b"done", b"\n"):
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            await clients.send_all(piece)


async def test_clients_that_say_something_else_have_failed() -> None:
    clients, server = trio.testing.memory_stream_one_way_pair()
    await clients.send_all(b"do")
    await clients.aclose()
    with pytest.raises(RuntimeError, match=r"expected the line b'done\\n' from the clients; got b'do'"):
        await wait_for_line(server, b"done\n")
