"""The worker pool: its bound, its queue, its leases, and the context of a call."""

from __future__ import annotations

import contextvars
import errno
import importlib.util
import itertools
import math
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from asgiref import local as asgiref_local
from asgiref.local import Local
from trio.testing import wait_all_tasks_blocked

from trio_channels._threads import pool as _threads
from trio_channels._threads.lease import current_lease
from trio_channels._threads.pool import PoolStatistics, WorkerPool, current_pool
from trio_channels._threads.thread import at_thread_exit, call_soon_in_trio, in_pool_thread, lease_of_task, run_in_trio
from trio_channels.exceptions import BridgeError, ConfigurationError, WorkerPoolBusy, WorkerPoolClosed

ROOT = Path(__file__).parents[2]

#: Seconds after which a thread that waits for another gives up: only a broken program gets there.
PATIENCE = 20

#: Newer Pythons warn of every fork of a process with threads. These tests fork one.
FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
local = Local()


class Gate:
    """A call that notes that it has begun, and ends when the test opens the gate."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._open = threading.Event()
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        self._begun.set()
        assert self._open.wait(PATIENCE)
        return threading.get_ident()

    async def begun(self) -> None:
        while not self._begun.is_set():
            await trio.lowlevel.checkpoint()

    def open(self) -> None:
        self._open.set()


@contextmanager
def opened_at_last(*gates: Gate) -> Iterator[None]:
    """A failing test must not leave threads waiting."""
    try:
        yield
    finally:
        for gate in gates:
            gate.open()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


def idle(pool: WorkerPool) -> bool:
    seen = pool.statistics()
    return seen.leased == seen.waiting == 0


# -- the bound and the queue ------------------------------------------------------------------------------------------


async def test_pool_has_no_thread_before_the_first_call() -> None:
    assert current_pool(3, 4).statistics() == PoolStatistics(
        workers=0, leased=0, held=0, idle=0, waiting=0, limit=3, queue_limit=4, calls=0
    )


async def test_run_has_one_pool() -> None:
    assert current_pool(3) is current_pool(5)
    assert current_pool().statistics().limit == 3


async def test_never_more_threads_run_than_the_limit() -> None:
    pool, lock = current_pool(3), threading.Lock()
    running = most = 0

    def call() -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        os.sched_yield()
        with lock:
            running -= 1
        return threading.get_ident()

    threads = set()

    async def one() -> None:
        threads.add(await pool.run_sync(call))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(one)
    assert most <= 3
    assert len(threads) <= 3
    assert pool.statistics() == PoolStatistics(
        workers=len(threads), leased=0, held=0, idle=len(threads), waiting=0, limit=3, queue_limit=1_000, calls=50
    )


async def test_as_many_calls_as_the_limit_run_at_the_same_time() -> None:
    barrier = threading.Barrier(4)
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(current_pool(4).run_sync, barrier.wait, PATIENCE)
    assert not barrier.broken


async def test_thread_used_last_is_used_next() -> None:
    pool, gates = current_pool(3), [Gate(), Gate(), Gate()]
    with opened_at_last(*gates):
        async with trio.open_nursery() as nursery:
            for gate in gates:
                nursery.start_soon(pool.run_sync, gate)
                await gate.begun()
            last = gates[1]
            gates[0].open()
            gates[2].open()
            await until(lambda: pool.statistics().leased == 1)
            last.open()
    expected = {await pool.run_sync(threading.current_thread) for _ in range(10)}
    assert [thread.name for thread in expected] == ["trio-channels thread 2"]


async def test_calls_wait_in_the_order_they_came() -> None:
    pool, gate, order = current_pool(1), Gate(), []
    with opened_at_last(gate):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run_sync, gate)
            await gate.begun()
            for number in range(5):
                nursery.start_soon(pool.run_sync, order.append, number)
                await until(lambda number=number: pool.statistics().waiting == number + 1)
            gate.open()
    assert order == [0, 1, 2, 3, 4]


async def test_full_queue_is_an_error_and_not_a_pile_up() -> None:
    pool, gate = current_pool(1, 1), Gate()
    with opened_at_last(gate):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run_sync, gate)
            await gate.begun()
            nursery.start_soon(pool.run_sync, int)
            await until(lambda: pool.statistics().waiting)
            with pytest.raises(WorkerPoolBusy, match="all 1 threads are taken and 1 calls wait"):
                await pool.run_sync(int)
            gate.open()
    assert idle(pool)


async def test_waiting_for_a_thread_can_be_cancelled() -> None:
    pool, gate, ran = current_pool(1), Gate(), []
    with opened_at_last(gate):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run_sync, gate)
            await gate.begun()
            async with trio.open_nursery() as waiting:
                waiting.start_soon(pool.run_sync, ran.append, 1)
                await until(lambda: pool.statistics().waiting)
                waiting.cancel_scope.cancel()
            assert pool.statistics().waiting == 0
            gate.open()
    assert ran == []
    assert idle(pool)


async def test_call_that_waits_long_keeps_its_place(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, gate, ran = current_pool(1), Gate(), []
    with opened_at_last(gate):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run_sync, gate)
            await gate.begun()
            monkeypatch.setattr(_threads, "STARVING", 0.0)
            nursery.start_soon(pool.run_sync, ran.append, 1)
            await until(lambda: caplog.records)
            monkeypatch.setattr(_threads, "STARVING", math.inf)
            nursery.start_soon(pool.run_sync, ran.append, 2)
            await until(lambda: pool.statistics().waiting == 2)
            gate.open()
    assert ran == [1, 2]
    (message,) = caplog.messages
    assert message == (
        "all 1 threads are taken and 1 calls wait, one of them for 0 seconds; find the slow calls, or raise "
        "WORKER_THREADS"
    )
    assert idle(pool)


async def test_calls_that_wait_long_are_said_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, gate = current_pool(1), Gate()
    monkeypatch.setattr(_threads, "STARVING", 0.0)
    with opened_at_last(gate):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.run_sync, gate)
            await gate.begun()
            for _ in range(5):
                nursery.start_soon(pool.run_sync, int)
            await until(lambda: pool.statistics().waiting == 5)
            await wait_all_tasks_blocked()
            gate.open()
    assert len(caplog.records) == 1


async def test_thread_that_comes_while_the_log_is_told_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, ran = current_pool(1), []
    monkeypatch.setattr(_threads, "STARVING", 0.0)
    lease = await pool.take()
    monkeypatch.setattr(pool, "_warn", lease.end)
    await pool.run_sync(ran.append, 1)
    assert ran == [1]
    assert idle(pool)


async def test_thread_that_comes_to_a_cancelled_call_goes_on() -> None:
    pool, ran = current_pool(1), []
    lease = await pool.take()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, ran.append, 1)
        await until(lambda: pool.statistics().waiting)
        nursery.cancel_scope.cancel()
        lease.end()
    assert ran == []
    assert idle(pool)
    await pool.run_sync(ran.append, 2)
    assert ran == [2]


async def test_call_that_is_cancelled_before_it_begins_has_not_run() -> None:
    ran: list[int] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await current_pool().run_sync(ran.append, 1)
    assert ran == []
    assert idle(current_pool())


async def test_worker_handed_to_a_cancelled_task_comes_back() -> None:
    pool, gate, ran = current_pool(1), Gate(), []
    with opened_at_last(gate):
        async with trio.open_nursery() as nursery, trio.open_nursery() as waiting:
            waiting.start_soon(pool.run_sync, ran.append, 1)  # takes the worker, or waits
            await until(lambda: ran)
            nursery.start_soon(pool.run_sync, gate)
            await gate.begun()
            waiting.start_soon(pool.run_sync, ran.append, 2)
            await until(lambda: pool.statistics().waiting)
            gate.open()
            await until(lambda: not pool.statistics().waiting)  # the task has the worker, and has not run on
            waiting.cancel_scope.cancel()
    assert idle(pool)
    await pool.run_sync(ran.append, 3)
    assert ran[-1] == 3


async def test_call_that_has_begun_is_waited_for_and_its_result_returned() -> None:
    pool, gate, results = current_pool(), Gate(), []

    async def call() -> None:
        results.append(await pool.run_sync(gate))

    with opened_at_last(gate):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await gate.begun()
            nursery.cancel_scope.cancel()
            await trio.lowlevel.cancel_shielded_checkpoint()
            assert results == []
            assert pool.statistics().leased == 1
            gate.open()
    assert len(results) == 1
    assert idle(pool)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt("x"), SystemExit(3)])
async def test_what_a_call_raises_passes_through_and_the_thread_lives_on(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await current_pool(1).run_sync(fail)
    assert caught.value is error
    assert await current_pool().run_sync(in_pool_thread)
    assert current_pool().statistics().workers == 1


@pytest.mark.parametrize(("limit", "queue_limit", "name"), [(0, 1, "limit"), (1, -1, "queue_limit")])
async def test_bound_that_is_no_count_is_refused(limit: int, queue_limit: int, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the thread pool's {name} must be"):
        WorkerPool(limit, queue_limit)


async def test_reprs_tell_what_is_in_use() -> None:
    pool = current_pool(2)
    async with pool.lease() as lease:
        assert repr(pool) == "<WorkerPool 1 of 2 leased, 0 waiting>"
        assert repr(lease) == "<Lease of 'trio-channels thread 1'>"
    assert repr(lease) == "<Lease of 'trio-channels thread 1', closed>"


async def test_more_answers_than_the_pipe_back_holds_all_arrive() -> None:
    count, seen = 300_000, 0

    def heard() -> None:
        nonlocal seen
        seen += 1

    def flood() -> None:
        for _ in range(count):
            call_soon_in_trio(heard)

    async def block() -> None:  # the loop does not read while the thread floods
        await gate.begun()
        gate.open()
        assert flooded.wait(PATIENCE)

    gate, flooded = Gate(), threading.Event()

    def call() -> None:
        gate()
        flood()
        flooded.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(current_pool().run_sync, call)
        nursery.start_soon(block)
    assert seen == count


@pytest.mark.parametrize("cancelled", [(0,), (1,), (0, 2), (0, 1, 2)])
async def test_of_tasks_that_wait_for_one_thread_any_may_be_cancelled(cancelled: tuple[int, ...]) -> None:
    gates, scopes = [Gate() for _ in range(3)], [trio.CancelScope() for _ in range(3)]
    answered, after = [], []

    async def call(number: int) -> None:
        with scopes[number]:
            await lease.run_sync(gates[number])
            answered.append(number)
            await trio.lowlevel.checkpoint()
            after.append(number)

    async with current_pool().lease() as lease, trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(call, number)
            await wait_all_tasks_blocked()  # the first listens, for the others, too
        for number in cancelled:
            scopes[number].cancel()
        await wait_all_tasks_blocked()
        for number in range(3):
            assert answered == list(range(number))
            gates[number].open()
            while len(answered) == number:
                await trio.lowlevel.checkpoint()
    assert after == [number for number in range(3) if number not in cancelled]


async def test_listener_that_is_woken_for_nothing_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_readable, woken = trio.lowlevel.wait_readable, 0

    async def wake_for_nothing(reader: int) -> None:
        nonlocal woken
        woken += 1
        if woken <= 3:
            await trio.lowlevel.checkpoint()
        else:
            gate.open()
            await wait_readable(reader)

    gate = Gate()
    monkeypatch.setattr(trio.lowlevel, "wait_readable", wake_for_nothing)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(current_pool().run_sync, gate)
    assert woken >= 4


#: In a process of its own, as a signal interrupts the main thread.
INTERRUPT = """
import os, signal, sys, time, trio
from trio_channels._threads.pool import current_pool
from trio_channels._threads.thread import run_in_trio

def call():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
    print("goes on", flush=True)
    if sys.argv[1] == "nested":
        try:
            run_in_trio(trio.sleep_forever)
        except KeyboardInterrupt:
            print("told", flush=True)
            raise

async def main():
    try:
        await current_pool().run_sync(call)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(await current_pool().run_sync(str, "the next"), flush=True)
    print(current_pool(), flush=True)

trio.run(main)
"""


@pytest.mark.parametrize(("case", "told"), [("plain", []), ("nested", ["told"])])
def test_interrupt_comes_after_a_call_or_in_its_async_code(case: str, told: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT, case], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    said = ["goes on", *told, "interrupted", "the next", "<WorkerPool 0 of 10 leased, 0 waiting>"]
    assert (done.stdout.splitlines(), done.stderr) == (said, "")


#: Interrupts the n-th run at the n-th line that the main thread runs of the modules ``pool`` and ``thread``.
INTERRUPT_ANYWHERE = """
import itertools, os, signal, sys, trio
from trio_channels._threads import pool as _threads, thread

FILES = {_threads.__file__, thread.__file__}

def interrupt(at):
    seen = itertools.count(1)

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line" and next(seen) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return trace

    return trace

async def calls(pool):
    await pool.run_sync(thread.run_in_trio, trio.lowlevel.checkpoint)
    async with pool.lease() as lease, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(lease.run_sync, int)

async def main(at):
    pool = _threads.current_pool(2)
    await pool.run_sync(int)
    sys.settrace(interrupt(at))
    interrupted = False
    try:
        await calls(pool)
        await trio.lowlevel.checkpoint()
    except* KeyboardInterrupt:
        interrupted = True
    finally:
        sys.settrace(None)
    with trio.fail_after(20):
        await pool.run_sync(int)
    assert pool.statistics().leased == 0, (at, pool)
    assert not any(thread.jobs for thread in pool._threads), at
    return interrupted

for at in itertools.count(1):
    if not trio.run(main, at):
        break
print(at)
"""


def test_interrupt_between_any_two_lines_loses_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT_ANYWHERE], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 100  # lines; fewer mean that the trace does not work


async def test_failing_callback_of_a_thread_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard = []

    def call() -> str:
        call_soon_in_trio(int, "no number")
        call_soon_in_trio(heard.append, "the next")
        return "result"

    assert await current_pool().run_sync(call) == "result"
    assert heard == ["the next"]
    assert [record.name for record in caplog.records] == ["trio_channels.threads"]
    assert "'int'" in caplog.text
    assert "no number" in caplog.text


async def test_idle_thread_keeps_nothing_of_its_last_call() -> None:
    class Thing:
        pass

    thing = Thing()
    alive = weakref.ref(thing)
    await current_pool().run_sync(id, thing)
    del thing
    with trio.fail_after(PATIENCE):
        while alive() is not None:
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("missing", ["the first pipe", "the second pipe", "the thread"])
async def test_worker_that_cannot_be_made_leaves_nothing_open(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipes, make_pipe = [], os.pipe

    def pipe() -> tuple[int, int]:
        if missing == ("the first pipe", "the second pipe", "")[min(len(pipes), 2)]:
            raise OSError(errno.EMFILE, "Too many open files")
        pipes.append(make_pipe())
        return pipes[-1]

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = current_pool()
    with monkeypatch.context() as patch:
        patch.setattr("trio_channels._threads.thread.open_pipe", pipe)
        if missing == "the thread":
            patch.setattr(threading.Thread, "start", start)
        with pytest.raises((OSError, RuntimeError)):
            await pool.run_sync(int)
    for end in itertools.chain(*pipes):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(end)
    assert await pool.run_sync(int) == 0


# -- the end of the run -----------------------------------------------------------------------------------------------


def test_threads_are_joined_after_their_exit_callbacks() -> None:
    ended, threads = [], []

    def call() -> None:
        at_thread_exit(note)
        at_thread_exit(note)  # registered twice, called once
        threads.append(threading.current_thread())

    def note() -> None:
        ended.append(threading.current_thread())

    async def main() -> None:
        await current_pool().run_sync(call)
        assert ended == []

    trio.run(main)
    assert ended == threads
    assert not threads[0].is_alive()


def test_exit_callback_in_a_foreign_thread_does_nothing() -> None:
    at_thread_exit(partial(pytest.fail, "called"))
    trio.run(trio.lowlevel.checkpoint)


def test_pool_whose_run_has_ended_refuses_calls() -> None:
    pools: list[WorkerPool] = []

    async def first() -> None:
        pools.append(current_pool())

    async def second() -> None:
        with pytest.raises(WorkerPoolClosed, match="has ended"):
            await pools[0].run_sync(int)

    trio.run(first)
    trio.run(second)


def test_system_task_that_outlives_main_is_waited_for() -> None:
    gate, results = Gate(), []

    async def call() -> None:
        with trio.CancelScope(shield=True):
            results.append(await current_pool().run_sync(gate))

    async def open_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            gate.open()

    async def main() -> None:
        current_pool()
        trio.lowlevel.spawn_system_task(call)
        trio.lowlevel.spawn_system_task(open_at_the_end)
        await gate.begun()

    trio.run(main)
    assert len(results) == 1


def test_system_tasks_last_call_is_answered() -> None:
    results: list[bool] = []

    async def call_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for _ in range(20):  # every other system task has ended by then, in whatever order they are
                    await trio.lowlevel.checkpoint()
                results.append(await current_pool().run_sync(in_pool_thread))

    async def main() -> None:
        current_pool()
        trio.lowlevel.spawn_system_task(call_late)
        await wait_all_tasks_blocked()

    trio.run(main)
    assert results == [True]


#: In a process of its own: nothing of a Trio run that has crashed can be cleaned up.
CRASH = """
import trio
from trio_channels._threads.pool import current_pool
from trio_channels._threads.thread import run_in_trio
from trio_channels.exceptions import WorkerPoolClosed

def call():
    try:
        run_in_trio(wait)
    except WorkerPoolClosed:
        print("told", flush=True)
        raise

async def wait():
    asked.set()
    await trio.sleep_forever()

def crash(_raise_cancel):
    raise ZeroDivisionError  # an abort function must not: Trio gives up

async def main():
    global asked
    asked = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(current_pool().run_sync, call)
        await asked.wait()
        with trio.move_on_after(0):
            await trio.lowlevel.wait_task_rescheduled(crash)

try:
    trio.run(main)
except trio.TrioInternalError:
    print("joined", flush=True)
"""


def test_thread_of_a_crashed_run_is_told_and_joined() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASH], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split() == ["told", "joined"]


# -- the context of a call --------------------------------------------------------------------------------------------


async def test_context_variables_go_in_and_come_back() -> None:
    def call() -> str:
        before = variable.get()
        variable.set("from the thread")
        return before

    variable.set("from the task")
    assert await current_pool().run_sync(call) == "from the task"
    assert variable.get() == "from the thread"


async def test_context_variables_come_back_from_a_call_that_fails() -> None:
    def call() -> None:
        variable.set("from the thread")
        raise LookupError

    with pytest.raises(LookupError):
        await current_pool().run_sync(call)
    assert variable.get() == "from the thread"


async def test_data_of_an_asgiref_local_goes_in_and_comes_back() -> None:
    def call() -> str:
        before: str = local.language
        local.language = "cy"
        return before

    local.language = "gd"
    assert await current_pool().run_sync(call) == "gd"
    assert local.language == "cy"


async def test_local_data_goes_out_with_a_nested_call_and_back() -> None:
    async def nested() -> str:
        before: str = local.language
        local.language = "br"
        return before

    def call() -> tuple[str, str]:
        local.language = "kw"
        return run_in_trio(nested), local.language

    assert await current_pool().run_sync(call) == ("kw", "br")
    assert local.language == "br"


async def test_one_tasks_variables_are_not_anothers() -> None:
    pool, seen = current_pool(1), {}

    async def one(name: str) -> None:
        variable.set(name)
        seen[name] = await pool.run_sync(variable.get)

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(one, name)
    assert seen == {"a": "a", "b": "b", "c": "c"}
    assert variable.get() == "unset"


def test_asgiref_without_tagged_storage_is_served_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(asgiref_local, "_Storage", raising=False)
    spec = importlib.util.spec_from_file_location(
        "as_with_an_old_asgiref", ROOT / "trio_channels" / "_threads" / "context.py"
    )
    old = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(old)
    variable, value = contextvars.ContextVar("known to both", default=None), object()
    context = contextvars.copy_context()
    context.run(variable.set, value)
    old.adopt(context)
    old.take_over()
    assert variable.get() is value


# -- leases and nested calls ------------------------------------------------------------------------------------------


async def test_lease_holds_one_thread() -> None:
    others: set[int] = set()

    async def outside() -> None:
        await in_lease.wait()
        others.update({await current_pool().run_sync(threading.get_ident) for _ in range(5)})
        done.set()

    in_lease, done = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outside)
        async with current_pool().lease() as lease:
            threads = {await lease.run_sync(threading.get_ident) for _ in range(5)}
            in_lease.set()
            await done.wait()
    assert len(threads) == len(others) == 1
    assert not threads & others


async def test_what_is_called_inside_a_lease_runs_on_its_thread() -> None:
    pool = current_pool(1)
    with trio.fail_after(PATIENCE):
        async with pool.lease() as lease:
            held = await lease.run_sync(threading.get_ident)
            assert current_lease() is lease
            assert await pool.run_sync(threading.get_ident) == held
            async with pool.lease() as inner:
                assert inner is lease
    assert lease_of_task.get() is None


async def test_task_started_inside_a_lease_shares_its_thread() -> None:
    pool = current_pool(1)
    threads: list[int] = []

    async def child() -> None:
        threads.append(await pool.run_sync(threading.get_ident))
        called.set()
        await lease_ended.wait()
        assert current_lease() is None

    called, lease_ended = trio.Event(), trio.Event()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            async with pool.lease() as lease:
                nursery.start_soon(child)
                await called.wait()
                threads.append(await lease.run_sync(threading.get_ident))
            lease_ended.set()
    assert threads[0] == threads[1]


async def test_ended_lease_refuses_calls() -> None:
    async with current_pool().lease() as lease:
        pass
    with pytest.raises(WorkerPoolClosed, match="this lease"):
        await lease.run_sync(int)


async def test_nested_calls_run_on_the_held_thread() -> None:
    pool = current_pool(2)

    async def nested() -> tuple[int, int]:
        async with pool.lease() as lease:
            return await pool.run_sync(threading.get_ident), await lease.run_sync(threading.get_ident)

    def call() -> tuple[int, tuple[int, int]]:
        return threading.get_ident(), run_in_trio(nested)

    outer, inner = await pool.run_sync(call)
    assert inner == (outer, outer)
    assert pool.statistics().workers == 1


async def test_nested_calls_go_as_deep_as_one_likes() -> None:
    pool = current_pool(1)

    def down(levels: int) -> set[int]:
        here = {threading.get_ident()}
        return here if not levels else here | run_in_trio(partial(pool.run_sync, down, levels - 1))

    assert len(await pool.run_sync(down, 20)) == 1


async def test_eight_nested_calls_on_two_threads_do_not_deadlock() -> None:
    pool, same = current_pool(2), []

    async def nested() -> int:
        await trio.lowlevel.checkpoint()
        return await pool.run_sync(threading.get_ident)

    def call() -> bool:
        return run_in_trio(nested) == threading.get_ident()

    async def one() -> None:
        same.append(await pool.run_sync(call))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(one)
    assert same == [True] * 8


async def test_tasks_of_one_nested_call_share_its_thread() -> None:
    pool, threads = current_pool(1), []

    async def one() -> None:
        threads.append(await pool.run_sync(threading.get_ident))

    async def nested() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)

    def call() -> int:
        run_in_trio(nested)
        return threading.get_ident()

    assert [await pool.run_sync(call)] * 5 == threads


async def test_nested_calls_of_siblings_find_their_way_back() -> None:
    pool, first_asks = current_pool(1), trio.Event()

    async def wait_for_the_other() -> str:
        await second_done.wait()
        return "first"

    async def at_once() -> str:
        return "second"

    def first() -> str:
        trio.from_thread.run_sync(first_asks.set, trio_token=token)
        return run_in_trio(wait_for_the_other)

    async def both() -> list[str]:
        results: list[str] = []

        async def run_first() -> None:
            results.append(await pool.run_sync(first))

        async def run_second() -> None:
            await first_asks.wait()
            results.append(await pool.run_sync(run_in_trio, at_once))
            second_done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_first)
            nursery.start_soon(run_second)
        return results

    token, second_done = trio.lowlevel.current_trio_token(), trio.Event()
    assert await pool.run_sync(run_in_trio, both) == ["second", "first"]


async def test_task_that_made_the_call_has_no_lease_afterwards() -> None:
    await current_pool().run_sync(run_in_trio, trio.lowlevel.checkpoint)
    assert current_lease() is None


async def test_task_that_outlives_its_call_takes_its_own_thread(nursery: trio.Nursery) -> None:
    pool, go, results = current_pool(2), trio.Event(), []

    async def outlive() -> None:
        await go.wait()
        results.append(current_lease())
        results.append(await pool.run_sync(in_pool_thread))

    async def start() -> None:
        nursery.start_soon(outlive)

    await pool.run_sync(run_in_trio, start)
    go.set()
    await until(lambda: len(results) == 2)
    assert results == [None, True]


async def test_thread_is_not_given_away_before_it_is_done(nursery: trio.Nursery) -> None:
    pool, gate, left_over = current_pool(2), Gate(), Gate()

    async def start() -> None:
        nursery.start_soon(pool.run_sync, left_over)

    def call() -> None:
        run_in_trio(start)
        gate()  # meanwhile the task has put its call into this thread's inbox

    with opened_at_last(gate, left_over):
        async with trio.open_nursery() as calls:
            calls.start_soon(pool.run_sync, call)
            await gate.begun()
            await wait_all_tasks_blocked()
            gate.open()
        await left_over.begun()
        assert pool.statistics().leased == 1
        assert await pool.run_sync(threading.get_ident) != await _thread_of(left_over, pool)
    await until(lambda: idle(pool))


async def _thread_of(gate: Gate, pool: WorkerPool) -> int:
    """The thread of the only leased worker: it is not idle, and has jobs."""
    return next(thread.thread.ident for thread in pool._threads if thread not in pool._idle and thread.jobs)


async def test_what_is_left_over_may_nest_calls_on_a_pool_of_one(nursery: trio.Nursery) -> None:
    pool, gate, results = current_pool(1), Gate(), []

    def left_over() -> tuple[int, int]:
        return threading.get_ident(), run_in_trio(partial(pool.run_sync, threading.get_ident))

    async def outlive() -> None:
        results.append(await pool.run_sync(left_over))

    async def start() -> None:
        nursery.start_soon(outlive)

    def call() -> None:
        run_in_trio(start)
        gate()

    with opened_at_last(gate):
        async with trio.open_nursery() as calls:
            calls.start_soon(pool.run_sync, call)
            await gate.begun()
            await wait_all_tasks_blocked()
            gate.open()
        await until(lambda: results)
    [(outer, inner)] = results
    assert outer == inner
    await until(lambda: idle(pool))


def test_lease_carried_into_another_run_is_not_used() -> None:
    results: list[object] = []

    async def other() -> None:
        results.append(current_lease())
        results.append(await current_pool().run_sync(threading.current_thread) is threading.current_thread())

    def call() -> None:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(trio.run, other))
        thread.start()
        thread.join(PATIENCE)

    async def main() -> None:
        await current_pool(1).run_sync(call)

    trio.run(main)
    assert results == [None, False]


async def test_cancellation_passes_through_the_thread_that_waits() -> None:
    pool, seen, started = current_pool(), [], trio.Event()

    async def wait() -> None:
        started.set()
        await trio.sleep_forever()

    def call() -> None:
        try:
            run_in_trio(wait)
        except trio.Cancelled:
            seen.append("in the thread")
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, call)
        await started.wait()
        nursery.cancel_scope.cancel()
    assert seen == ["in the thread"]
    assert idle(pool)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt("x"), SystemExit(3)])
async def test_what_a_nested_call_raises_passes_through_the_thread(error: BaseException) -> None:
    async def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await current_pool().run_sync(run_in_trio, fail)
    assert caught.value is error


@pytest.mark.parametrize("function", [lambda: run_in_trio(trio.sleep_forever), lambda: call_soon_in_trio(int)])
def test_thread_that_is_no_worker_cannot_ask_its_task(function: Callable[[], object]) -> None:
    assert not in_pool_thread()
    with pytest.raises(BridgeError, match="outside a pool thread"):
        function()


@FORKS
def test_child_process_forked_in_a_worker_is_no_worker() -> None:
    def call() -> int:
        child = os.fork()
        if child == 0:
            os._exit(int(in_pool_thread()))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    async def main() -> int:
        return await current_pool().run_sync(call)

    assert trio.run(main) == 0


async def test_every_call_cancelled_anywhere_leaves_nothing_behind() -> None:
    pool, done = current_pool(2), 0

    def call() -> int:
        nonlocal done
        done += 1
        return run_in_trio(partial(pool.run_sync, int))

    async def one(turns: int) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.run_sync, call)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(one, number % 40)
    assert idle(pool)
    assert all(thread.jobs == 0 and not thread.held for thread in pool._threads)
