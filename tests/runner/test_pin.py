"""Option ``--pin``: which core it is, and that processes really keep to it."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
from typing import Any

import pytest

from trio_channels.exceptions import CannotStart
from trio_channels.runner.cli import parse
from trio_channels.runner.pin import choose, keep_to, offset_of_server, warn_of_sharing

from ..integration.server.conftest import Server
from ..process import Program
from .serving import serving

pytestmark = pytest.mark.slow

#: What this process may use, and so what a server that it starts may use.
ALLOWED = os.sched_getaffinity(0)

#: The command, as on a machine with one core.
ON_ONE_CORE = """
import os, sys
from trio_channels.runner import main
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
sys.exit(main())
"""


async def cores_of_threads(runner: Program) -> list[list[int]]:
    """Which cores the threads of a process that serves may use, from a view in it."""
    answer: list[list[int]] = json.loads((await Server(await runner.port()).request("GET", "/cores/")).body)
    return answer


async def workers_of(runner: Program, started: int) -> dict[int, int]:
    """When so many workers have come to serve: the process of each that is there now, by the worker's number."""
    await runner.said("Running on", times=started)
    lines = await runner.said(r"(\[\d+\] \[INFO\] worker \d+ keeps to core \d+)", times=started)
    told = [[int(number) for number in re.findall(r"\d+", line)] for line in lines]
    workers = {number: pid for pid, number, _core in told}
    for pid, number, core in told:
        if workers[number] == pid:
            assert os.sched_getaffinity(pid) == {core}, "it does what it says"
    return workers


def core_of(pid: int) -> int:
    (core,) = os.sched_getaffinity(pid)
    return core


# -- the choice -------------------------------------------------------------------------------------------------------


def test_workers_have_cores_of_their_own_as_long_as_there_are_any() -> None:
    cores = {0, 2, 3, 9}
    for offset in range(5):
        assert {choose(cores, offset, number) for number in range(1, 5)} == cores


def test_more_workers_than_cores_share_them_evenly() -> None:
    chosen = [choose({4, 7}, 12345, number) for number in range(1, 7)]
    assert sorted(chosen) == [4, 4, 4, 7, 7, 7]


def test_cores_are_taken_in_their_order_whatever_the_order_they_come_in() -> None:
    assert [choose((9, 0, 3), 1, number) for number in range(4)] == [3, 9, 0, 3]


def test_servers_that_start_one_after_another_begin_at_different_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(pid: int) -> int:
        monkeypatch.setattr("os.getpid", lambda: pid)
        return choose(range(4), offset_of_server(), 0)

    assert {chosen(pid) for pid in range(1000, 1004)} == {0, 1, 2, 3}


def test_containers_in_which_every_server_has_the_same_id_do_not_all_begin_at_one_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def chosen(host: str) -> int:
        monkeypatch.setattr("socket.gethostname", lambda: host)
        return choose(range(4), offset_of_server(), 0)

    monkeypatch.setattr("os.getpid", lambda: 1)
    assert {chosen(f"web-{number}") for number in range(40)} == {0, 1, 2, 3}


# -- what stands in the way -------------------------------------------------------------------------------------------


def test_a_system_where_a_process_cannot_choose_is_told_of_and_nothing_is_opened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("os.sched_setaffinity")
    monkeypatch.setattr("sys.platform", "plan9")
    with pytest.raises(SystemExit) as ended:
        parse(["serve", "mysite.asgi:application", "--pin"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "expected a system where a process can choose its cores" in told
    assert "got plan9. Leave --pin out" in told


def test_without_the_option_no_system_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_setaffinity")
    assert not parse(["serve", "mysite.asgi:application"]).pin


def test_a_system_that_forbids_it_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_arguments: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.sched_setaffinity", forbidden)
    with pytest.raises(CannotStart, match=r"cannot keep to core 3: .* not permitted\. Leave --pin out"):
        keep_to(3)


@pytest.mark.parametrize(("cores", "told"), [({5}, "3 workers for 1 core:"), ({1, 5}, "3 workers for 2 cores:")])
def test_more_workers_than_cores_are_warned_of(
    cores: set[int], told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: cores)
    warn_of_sharing(3)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert told in record.getMessage()


def test_as_many_workers_as_cores_are_not_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {1, 5})
    warn_of_sharing(2)
    assert caplog.records == []


# -- processes --------------------------------------------------------------------------------------------------------


async def test_by_default_a_server_may_use_every_core() -> None:
    async with serving() as runner:
        for cores in await cores_of_threads(runner):
            assert set(cores) == ALLOWED
    assert "keeps to core" not in runner.text


async def test_a_server_without_workers_keeps_all_its_threads_on_one_core() -> None:
    async with serving("--pin") as runner:
        threads = await cores_of_threads(runner)
        (core,) = await runner.said(r"\[INFO\] the server keeps to core (\d+)")
    assert len(threads) > 1, "the loop, and a worker thread for the view"
    assert threads == [[int(core)]] * len(threads)
    assert int(core) in ALLOWED


async def test_workers_keep_to_cores_of_their_own_and_their_parent_to_none() -> None:
    async with serving("--pin", "--workers=2") as runner:
        cores = {core_of(pid) for pid in (await workers_of(runner, 2)).values()}
        threads = await cores_of_threads(runner)
        assert os.sched_getaffinity(runner.process.pid) == ALLOWED
    assert len(cores) == min(2, len(ALLOWED))
    assert cores <= ALLOWED
    assert threads == [threads[0]] * len(threads)
    assert len(threads[0]) == 1
    assert threads[0][0] in cores


async def test_more_workers_than_the_server_may_use_cores_share_them_and_that_is_told_once() -> None:
    async with serving("--pin", "--workers=2", command=("-c", ON_ONE_CORE)) as runner:
        cores = [core_of(pid) for pid in (await workers_of(runner, 2)).values()]
    assert cores == [max(ALLOWED)] * 2
    assert runner.text.count("[WARNING] --pin: 2 workers for 1 core: several keep to the same one") == 1


@pytest.mark.faults
@pytest.mark.time_limit(240)
async def test_a_worker_that_is_started_again_keeps_to_the_same_core() -> None:
    async with serving("--pin", "--workers=2") as runner:
        first = await workers_of(runner, 2)
        before = core_of(first[1])
        os.kill(first[1], signal.SIGKILL)  # it has served: the second one was not started before that
        again = await workers_of(runner, 3)
        assert again[1] != first[1]
        assert again[2] == first[2]
        assert core_of(again[1]) == before
