"""Between Trio and asyncio: one asyncio loop for each Trio run, by trio-asyncio, and calls from one to the other.

The rules:

- The loop runs in a system task, from its first use to the end of the Trio run. If there is one around already, as in a
  test, that one is used.
- Everything that asyncio code starts for a connection is in the connection's :class:`TaskTree`, and ends with it.
- An exception of an asyncio task that nobody awaits is logged, as in asyncio, and ends nothing.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import sniffio
import trio

from .._asgi.protocol import Receive, Send

with warnings.catch_warnings():
    # Since Python 3.12, about a class that trio-asyncio derives from.
    warnings.simplefilter("ignore", DeprecationWarning)
    import trio_asyncio
    import trio_asyncio._loop

logger = logging.getLogger("trio_channels.compat")

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

#: trio-asyncio has imported it.
_asyncio: Any = sys.modules["asyncio"]

_MARK = "_trio_channels_original"

_loop_of_run: trio.lowlevel.RunVar[Any] = trio.lowlevel.RunVar("trio_channels asyncio loop")
_opened: trio.lowlevel.RunVar[trio.Event] = trio.lowlevel.RunVar("trio_channels asyncio loop is open")
_tree: ContextVar[TaskTree | None] = ContextVar("trio_channels asyncio tasks", default=None)
#: Whether the code of this context was called by asyncio code, also on a thread.
from_asyncio: ContextVar[bool] = ContextVar("trio_channels called from asyncio", default=False)


def on_asyncio() -> bool:
    """Whether asyncio code is running on this thread, in a loop inside of Trio."""
    return sniffio.thread_local.name == "asyncio"


#: The kind of loop that is made outside of a Trio run. Importing trio-asyncio has replaced it: this brings it back.
_policy: Any = trio_asyncio._loop._FakedPolicy
_policy.policy = trio_asyncio._loop._original_policy


class TaskTree:
    """The asyncio tasks of one connection."""

    def __init__(self) -> None:
        self.tasks: set[Any] = set()
        self._ended = False

    def add(self, task: Any) -> None:
        """Add a task until it has ended; one that comes too late, such as by a timer, is cancelled."""
        if self._ended:
            task.cancel()
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    @contextmanager
    def active(self) -> Iterator[None]:
        """In the block, and in all that is started in it, new tasks belong to this tree."""
        token = _tree.set(self)
        try:
            yield
        finally:
            _tree.reset(token)

    async def end(self, seconds: float, name: str) -> None:
        """Cancel all tasks and wait for them, shielded; give up after `seconds`, with a line in the log."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds):
            while self.tasks:
                async with trio.open_nursery() as nursery:
                    for task in tuple(self.tasks):
                        task.cancel()
                        nursery.start_soon(_ended, task)
        self._ended = True
        if self.tasks:
            logger.error(
                "%d asyncio tasks of %s ignored their cancellation for %g seconds (DISCONNECT_TIMEOUT): %s",
                *(len(self.tasks), name, seconds, ", ".join(sorted(task.get_name() for task in self.tasks))),
            )


async def _ended(task: Any) -> None:
    ended = trio.Event()

    def tell(_task: Any) -> None:
        ended.set()

    task.add_done_callback(tell)
    try:
        await ended.wait()
    finally:
        task.remove_done_callback(tell)


def _new_task(loop: Any, coroutine: Any, **options: Any) -> Any:
    """The loop's factory of tasks: a new one belongs to the tree of its context."""
    task = _asyncio.Task(coroutine, loop=loop, **options)
    context = options.get("context")
    tree = _tree.get() if context is None else context.get(_tree)
    if tree is not None:
        tree.add(task)
    return task


async def enter_loop() -> Any:
    """The asyncio loop for this task, which is also set for trio-asyncio's functions.

    Cancellation: seen before the loop is there.
    """
    loop: Any = trio_asyncio.current_loop.get()
    if loop is None or loop.is_closed():
        try:
            opened = _opened.get()
        except LookupError:
            opened = trio.Event()
            _opened.set(opened)
            trio.lowlevel.spawn_system_task(_keep_loop, opened, name="asyncio loop of trio_channels.compat")
        await opened.wait()
        loop = _loop_of_run.get()
        trio_asyncio.current_loop.set(loop)
    if loop.get_task_factory() is not _new_task:
        loop.set_task_factory(_new_task)
    return loop


def adopt_loop(loop: Any) -> None:
    """Make a loop of somebody else that of the Trio run, in which it lasts to the end."""
    opened = trio.Event()
    opened.set()
    _opened.set(opened)
    _loop_of_run.set(loop)


async def _keep_loop(opened: trio.Event) -> None:
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_log)
        _loop_of_run.set(loop)
        opened.set()
        await trio.sleep_forever()


def _log(_loop: Any, context: dict[str, Any]) -> None:
    """The loop's handler of exceptions: trio-asyncio's own would end the loop, with all connections."""
    logger.error("asyncio: %s", context.get("message"), exc_info=context.get("exception"))


async def call_asyncio(function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
    """Call an asyncio function from Trio, in the loop of :func:`enter_loop`.

    Raises:
        RuntimeError: asyncio code has cancelled the call, and nothing of Trio has.

    Cancellation: cancels the asyncio function, and waits for its end.
    """
    loop: Any = trio_asyncio.current_loop.get()
    if not loop.is_running():  # nothing would ever end the call
        raise RuntimeError(f"the asyncio loop of {getattr(function, '__qualname__', function)} has ended")
    try:
        result: T = await trio_asyncio.aio_as_trio(function)(*args, **kwargs)
    except _asyncio.CancelledError as error:  # of Trio's cancellation, trio-asyncio makes Trio's exception
        raise RuntimeError(f"asyncio code cancelled {getattr(function, '__qualname__', function)}") from error
    return result


async def call_trio(function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
    """Call a Trio function from asyncio code.

    Cancellation, by asyncio: cancels the Trio function, and waits for its end.
    """

    loop = _asyncio.get_running_loop()

    async def call() -> T:
        from_asyncio.set(True)
        trio_asyncio.current_loop.set(loop)  # a task may have a context that is older than the loop
        return await function(*args, **kwargs)

    result: T = await trio_asyncio.trio_as_aio(call, loop=loop)()
    return result


def two_flavoured(function: F) -> F:
    """An async function of Trio, made callable from asyncio code too."""
    if hasattr(function, _MARK):
        return function

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        if on_asyncio():
            return await call_trio(function, *args, **kwargs)
        return await function(*args, **kwargs)

    setattr(call, _MARK, function)
    return call  # type: ignore[return-value]


def with_both_flavours(cls: type[T]) -> type[T]:
    """A subclass whose async methods asyncio code can call too."""
    methods = {
        name: two_flavoured(value)
        for base in reversed(cls.__mro__)
        for name, value in vars(base).items()
        if inspect.iscoroutinefunction(value) and not name.startswith("_")
    }
    return type(cls.__name__, (cls,), {**methods, "__module__": __name__, "__doc__": cls.__doc__})


def for_trio(function: F) -> F:
    """A ``receive`` or ``send`` that was given to asyncio code, for Trio code: the original if it was Trio's."""
    original: F | None = getattr(function, _MARK, None)
    if original is not None:
        return original
    return functools.partial(call_asyncio, function)  # type: ignore[return-value]


def for_asyncio(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """``receive`` and ``send`` of a server, for asyncio code."""
    return two_flavoured(receive), two_flavoured(send)
