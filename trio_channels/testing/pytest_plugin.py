"""The pytest plugin: a time limit for every async test, database fixtures, and unwrapped exceptions.

It is installed with the package, and works together with pytest-trio.

- A test that runs longer than ``trio_channels_time_limit`` seconds (an ini option, 60 by default; the marker
  ``@pytest.mark.time_limit(5)`` is for a single test) is cancelled, and fails with a list of its tasks and the line
  where each waits. The seconds are real time, whatever clock the test uses. A test that cannot be cancelled ends the
  session, after its name and the stacks of all threads are printed: it has frozen Trio's loop, waits for a thread, or
  has a fixture that hangs.
- An async test in a transaction (pytest-django's ``db`` and what depends on it) shares it with the threads of the pool:
  they see its rows, and theirs are rolled back with it. ``trio_db`` says the same by name.
- The fixture ``channel_layer`` gives a test new channel layers.
- The fixtures ``trio_db`` and ``trio_live_server`` need pytest-django.
- An exception that pytest-trio wraps in a group of one is unwrapped, so that ``xfail(raises=...)`` works.
"""

from __future__ import annotations

import _thread
import faulthandler
import functools
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

if TYPE_CHECKING:
    from ..layers.base import ChannelLayer
    from .live import LiveServer

from .._concurrency.exception_groups import bare

#: The default time limit, in seconds of real time.
TIME_LIMIT = 60.0
#: Seconds that a cancelled test may take to clean up.
GRACE = 10.0

_STDERR = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the ini option."""
    parser.addini(
        "trio_channels_time_limit", "the time limit of an async test, in seconds of real time", default=str(TIME_LIMIT)
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and duplicate standard error, which pytest captures while a test runs."""
    config.addinivalue_line("markers", "time_limit(seconds): the time limit of this async test, in real time")
    config.stash[_STDERR] = os.dup(2)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the duplicate of standard error."""
    os.close(config.stash[_STDERR])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Share the transaction of a test with its threads."""
    with _lending():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Wrap the test function in its limit, before pytest-trio wraps it in its runner."""
    test: Any = getattr(item, "obj", None)
    inner = test.hypothesis.inner_test if hasattr(test, "hypothesis") else test
    if not iscoroutinefunction(inner) or item.get_closest_marker("asyncio") is not None:
        return (yield)
    with _Watchdog(item.nodeid, _limit_of(item), item.config.stash[_STDERR]) as watchdog:
        limited = _limited(inner, watchdog)
        if inner is test:
            item.obj = limited  # type: ignore[attr-defined]
            return (yield)
        test.hypothesis.inner_test = limited
        try:
            return (yield)
        finally:
            # The items of a parametrized test share the function, and each has a limit of its own.
            test.hypothesis.inner_test = inner


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """Unwrap exception groups of one."""
    try:
        return (yield)
    except BaseExceptionGroup as group:
        error = bare(group)
        if isinstance(error, BaseExceptionGroup):
            raise
    raise error


@pytest.fixture
def trio_db(db: None) -> Iterator[None]:  # noqa: ARG001 - it is set up first
    """pytest-django's ``db``, by another name: all threads use the test's connections, and its changes are rolled back.

    Calls to the ORM run one after the other, on one thread. A task that holds the thread (``pinned()``,
    ``aatomic()``, a synchronous handler) must not wait for another task that calls the ORM.
    """
    with _lending(always=True):
        yield


@pytest.fixture
def channel_layer() -> Iterator[ChannelLayer]:
    """A new, empty channel layer for each alias of ``CHANNEL_LAYERS``; the value is the layer ``default``."""
    from .layers import fresh_channel_layers

    with fresh_channel_layers() as layer:
        yield layer


@pytest.fixture
def trio_live_server(transactional_db: None) -> Iterator[LiveServer]:  # noqa: ARG001 - it is set up first
    """A server of ``ASGI_APPLICATION`` on a free port, with static files: hypercorn on Trio, in a thread."""
    from .live import live_server

    with live_server() as server:
        yield server


def _lending(*, always: bool = False) -> AbstractContextManager[None]:
    # Not at the top: a plugin is imported before Django can be.
    from ._connections import lending

    return lending(always=always)


def _limit_of(item: pytest.Item) -> float:
    marker = item.get_closest_marker("time_limit")
    if marker is None:
        return float(item.config.getini("trio_channels_time_limit"))
    given = list(marker.args) or [marker.kwargs.get("seconds")]
    seconds = given[0]
    if len(given) != 1 or not isinstance(seconds, int | float) or not seconds > 0:
        pytest.fail(
            f"the marker time_limit takes a number of seconds above 0, such as time_limit(5); {item.name} has {marker}",
            pytrace=False,
        )
    return float(seconds)


def _limited(test: Callable[..., Any], watchdog: _Watchdog) -> Callable[..., Any]:
    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        with trio.CancelScope() as scope:
            watchdog.guard(trio.lowlevel.current_trio_token(), scope)
            await test(*args, **kwargs)
        if watchdog.report is not None:
            pytest.fail(watchdog.report, pytrace=False)

    return run


class _Watchdog:
    """A thread that cancels a test at its limit."""

    def __init__(self, name: str, limit: float, stderr: int) -> None:
        self._name = name
        self._stderr = stderr
        self._limit = limit
        self._done = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope: trio.CancelScope | None = None
        self._over = False  # the limit has passed
        self._thread = threading.Thread(target=self._watch, name="test time limit", daemon=True)
        self.report: str | None = None

    def __enter__(self) -> _Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        self._thread.join()

    def guard(self, token: trio.lowlevel.TrioToken, scope: trio.CancelScope) -> None:
        """Set the scope to cancel at the limit."""
        self._token, self._scope = token, scope  # before the look at `_over`: _watch() goes the other way round
        if self._over:  # in a fixture, between two examples of a Hypothesis test, or in an earlier one of them
            self._cancel()

    def _watch(self) -> None:
        if self._done.wait(self._limit):
            return
        self._over = True
        if self._token is not None:
            try:
                self._token.run_sync_soon(self._cancel)
            except trio.RunFinishedError:  # guard() cancels the next example of a Hypothesis test, if there is one
                return
        if not self._done.wait(GRACE):
            report = self.report or (
                f"{self._name} has not ended after {self._limit:g} seconds, and could not be cancelled: its event loop "
                f"is frozen, it waits for a thread, or one of its fixtures hangs. The stacks of all threads:"
            )
            os.write(self._stderr, f"\n{report}\n\n".encode())
            faulthandler.dump_traceback(self._stderr, all_threads=True)
            _interrupt()
            if not self._done.wait(GRACE):  # the signal is ignored, or its exception is caught
                os._exit(pytest.ExitCode.INTERRUPTED)  # pragma: no cover - ends the process that measures

    def _cancel(self) -> None:
        from ._connections import REMEDY, waits_for_thread

        if self.report is None:
            remedy = f"{REMEDY}\n" if waits_for_thread() else ""
            self.report = (
                f"{self._name} was cancelled: still running after {self._limit:g} seconds\n{remedy}{_task_tree()}"
            )
        cast(trio.CancelScope, self._scope).cancel()  # set with the token


def _interrupt() -> None:
    """Have the main thread raise KeyboardInterrupt."""
    if hasattr(signal, "pthread_kill"):
        # A real signal interrupts a blocking call, too.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _task_tree() -> str:
    """A line for each task of the run, with the line of code where it waits."""
    lines: list[str] = []

    def add(task: trio.lowlevel.Task, depth: int) -> None:
        frames = list(task.iter_await_frames())
        places = [f"{frame.f_code.co_filename}:{line}" for frame, line in frames]
        where = next((place for place in reversed(places) if "/trio/" not in place), "?")
        lines.append(f"{'  ' * depth}{task.name} at {where}")
        for nursery in task.child_nurseries:
            for child in nursery.child_tasks:
                add(child, depth + 1)

    add(cast(trio.lowlevel.Task, trio.lowlevel.current_root_task()), 0)  # this is called in the run
    return "\n".join(lines)
