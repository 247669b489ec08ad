"""From async to sync and back: every kind of thread; exceptions, context and cancellation on the way."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trio
from asgiref.local import Local

from trio_channels._threads.pool import current_pool
from trio_channels.exceptions import BridgeError
from trio_channels.sync import async_to_sync, sync_to_async

PATIENCE = 20
ROOT = Path(__file__).parent.parent

#: Newer Pythons warn of every fork of a process with threads. These tests fork such a process.
FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
local = Local()


async def where() -> tuple[str, int]:
    """The thread and the Trio run that async code runs in."""
    await trio.lowlevel.checkpoint()
    return threading.current_thread().name, id(trio.lowlevel.current_trio_token())


async def in_a_worker() -> str:
    return (await sync_to_async(threading.current_thread)()).name


# -- sync_to_async ----------------------------------------------------------------------------------------------------


async def test_synchronous_function_runs_on_a_worker_thread() -> None:
    assert (await in_a_worker()).startswith("trio-channels thread")


async def test_arguments_and_the_result_pass_through() -> None:
    @sync_to_async
    def call(first: int, *, second: int) -> tuple[int, int]:
        """What it does."""
        return first, second

    assert await call(1, second=2) == (1, 2)
    assert (call.__name__, call.__doc__) == ("call", "What it does.")


class _AsyncCallable:
    async def __call__(self) -> None: ...


async def _coroutine_function() -> None: ...


@pytest.mark.parametrize("wrong", [_coroutine_function, functools.partial(_coroutine_function), _AsyncCallable(), 5])
def test_what_is_not_synchronous_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"sync_to_async\(\) expects a synchronous function; got"):
        sync_to_async(wrong)


async def test_class_can_be_called_in_a_worker() -> None:
    assert await sync_to_async(dict)(a=1) == {"a": 1}


# -- async_to_sync, from each kind of thread --------------------------------------------------------------------------


async def test_from_a_worker_it_runs_in_the_trio_run_that_waits() -> None:
    here = await where()
    assert await sync_to_async(async_to_sync(where))() == here


async def test_from_a_worker_and_back_it_stays_on_one_thread() -> None:
    def call() -> tuple[str, str]:
        return threading.current_thread().name, async_to_sync(in_a_worker)()

    outer, inner = await sync_to_async(call)()
    assert outer == inner


async def test_eight_such_calls_on_two_threads_do_not_deadlock() -> None:
    pool, same = current_pool(2), []

    def call() -> bool:
        return async_to_sync(in_a_worker)() == threading.current_thread().name

    async def one() -> None:
        same.append(await sync_to_async(call)())

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(one)
    assert same == [True] * 8
    assert (pool.statistics().leased, pool.statistics().waiting) == (0, 0)


async def test_from_a_thread_of_trio_it_runs_in_its_run() -> None:
    here = await where()
    assert await trio.to_thread.run_sync(async_to_sync(where)) == here


def test_from_a_plain_thread_it_runs_in_the_background_run() -> None:
    name, _run = async_to_sync(where)()
    assert name == "trio-channels background"


def test_there_is_one_background_run_for_all_plain_threads() -> None:
    assert async_to_sync(where)() == async_to_sync(where)()


def test_plain_threads_share_the_background_run_at_the_same_time() -> None:
    arrived: list[int] = []
    everybody = 6

    async def meet(number: int) -> int:
        arrived.append(number)
        while len(arrived) < everybody:  # each waits for all the others: they really overlap
            await trio.lowlevel.checkpoint()
        return number

    with ThreadPoolExecutor(everybody) as executor:
        results = list(executor.map(async_to_sync(meet), range(everybody), timeout=PATIENCE))
    assert results == list(range(everybody))


def test_background_run_has_workers_too() -> None:
    assert async_to_sync(in_a_worker)().startswith("trio-channels thread")


async def test_on_a_trio_thread_it_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(BridgeError, match=r"on a thread that runs trio.* Await where\(\) instead"):
        async_to_sync(where)()


def test_on_an_asyncio_thread_it_is_an_error_that_says_what_to_do() -> None:
    async def main() -> None:
        with pytest.raises(BridgeError, match="on a thread that runs asyncio"):
            async_to_sync(where)()

    asyncio.run(main())


def test_synchronous_code_on_asyncio_is_told_it_has_no_threads() -> None:
    with pytest.raises(BridgeError, match="a thread pool belongs to a Trio run, and none runs in this thread"):
        asyncio.run(sync_to_async(int)())


def test_executor_thread_of_asyncio_uses_the_background_run() -> None:
    async def main() -> tuple[str, int]:
        return await asyncio.to_thread(async_to_sync(where))

    assert asyncio.run(main())[0] == "trio-channels background"


def test_what_cannot_be_called_is_refused() -> None:
    wrong: Any = where()
    with pytest.raises(TypeError, match=r"async_to_sync\(\) expects an async function; got <coroutine"):
        async_to_sync(wrong)
    wrong.close()


def test_it_can_decorate_a_method() -> None:
    class Greeter:
        name = "Ada"

        @async_to_sync
        async def greet(self, greeting: str) -> str:
            """Greets."""
            await trio.lowlevel.checkpoint()
            return f"{greeting}, {self.name}"

    assert Greeter().greet("hello") == "hello, Ada"
    assert Greeter.greet.__doc__ == "Greets."


# -- exceptions, context and cancellation -----------------------------------------------------------------------------

Via = Callable[[Callable[[], Any]], Any]


def _directly(call: Callable[[], Any]) -> Any:
    return call()


def _from_a_worker(call: Callable[[], Any]) -> Any:
    return trio.run(sync_to_async(call))


def _from_a_trio_thread(call: Callable[[], Any]) -> Any:
    return trio.run(trio.to_thread.run_sync, call)


EVERY_THREAD = pytest.mark.parametrize("via", [_directly, _from_a_worker, _from_a_trio_thread])


@EVERY_THREAD
@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt("x"), SystemExit(3)])
def test_exceptions_pass_through_bare(via: Via, error: BaseException) -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    with pytest.raises(type(error)) as caught:
        via(async_to_sync(fail))
    assert caught.value is error


@EVERY_THREAD
def test_context_variables_go_in_and_come_back(via: Via) -> None:
    async def swap() -> str:
        before = variable.get()
        variable.set("from async")
        return before

    def call() -> tuple[str, str]:
        variable.set("from sync")
        return async_to_sync(swap)(), variable.get()

    assert via(lambda: contextvars.copy_context().run(call)) == ("from sync", "from async")


@EVERY_THREAD
def test_data_of_an_asgiref_local_goes_in_and_comes_back(via: Via) -> None:
    async def swap() -> str:
        before: str = local.language
        local.language = "cy"
        return before

    def call() -> tuple[str, str]:
        local.language = "gd"
        return async_to_sync(swap)(), local.language

    assert via(lambda: contextvars.copy_context().run(call)) == ("gd", "cy")


def test_context_comes_back_from_a_failing_async_function() -> None:
    async def fail() -> None:
        variable.set("from async")
        raise LookupError

    def call() -> str:
        with pytest.raises(LookupError):
            async_to_sync(fail)()
        return variable.get()

    assert contextvars.copy_context().run(call) == "from async"


@pytest.mark.parametrize("in_thread", [sync_to_async, lambda call: functools.partial(trio.to_thread.run_sync, call)])
async def test_cancellation_reaches_async_code_through_the_thread(
    in_thread: Callable[[Any], Any],
) -> None:
    started, seen = trio.Event(), []

    async def wait() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            seen.append("async")
            raise

    def call() -> None:
        try:
            async_to_sync(wait)()
        except trio.Cancelled:
            seen.append("sync")
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_thread(call))
        await started.wait()
        nursery.cancel_scope.cancel()
    assert seen == ["async", "sync"]


# -- processes --------------------------------------------------------------------------------------------------------


def _in_a_fork(call: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if call() else 1)
        except BaseException:
            os._exit(2)
    for _ in range(PATIENCE * 100):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        threading.Event().wait(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise AssertionError("the forked child hangs")


@FORKS
def test_forked_child_starts_a_background_run_of_its_own() -> None:
    async_to_sync(where)()
    assert _in_a_fork(lambda: async_to_sync(where)()[0] == "trio-channels background") == 0


@FORKS
def test_forked_child_starts_its_own_background_run() -> None:
    async def main() -> int:
        return await sync_to_async(_in_a_fork)(lambda: async_to_sync(where)()[0] == "trio-channels background")

    assert trio.run(main) == 0


def test_background_run_ends_with_the_process() -> None:
    script = (
        "import trio; from trio_channels.sync import async_to_sync, sync_to_async;"
        "from trio_channels._threads.thread import at_thread_exit;"
        "async_to_sync(sync_to_async(at_thread_exit))(lambda: print('worker ended'))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "worker ended\n", "")


def test_nothing_here_starts_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise AssertionError("asyncio was started")

    monkeypatch.setattr(asyncio.BaseEventLoop, "__init__", refuse)
    assert async_to_sync(sync_to_async(int))() == 0
    assert trio.run(sync_to_async(async_to_sync(in_a_worker))).startswith("trio-channels thread")
