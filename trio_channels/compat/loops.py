"""Loops of asyncio for tests: each brings a Trio run with it, which goes on while the loop runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sniffio
import trio
import trio_asyncio._loop
from trio_asyncio._sync import SyncTrioEventLoop

from ..layers.on_demand import on_demand
from . import crossing

_asyncio: Any = sys.modules["asyncio"]

#: Seconds that the tasks which a test has left may take to end.
GRACE = 2.0


@contextmanager
def _in_trio() -> Iterator[None]:
    """Let sniffio see Trio in the block, and afterwards what it has seen before: trio-asyncio leaves that as it is."""
    before, sniffio.thread_local.name = sniffio.thread_local.name, "trio"
    try:
        yield
    finally:
        sniffio.thread_local.name = before


class LoopOnTrio(SyncTrioEventLoop):  # type: ignore[misc]
    """A loop of asyncio that runs Trio tasks too. Channel layers open on first use, as no server has opened them."""

    def __init__(self) -> None:
        with _in_trio():
            super().__init__()

    async def _main_loop_init(self, nursery: Any) -> None:
        await super()._main_loop_init(nursery)
        crossing.adopt_loop(self)
        self._layers_end, self._layers_ended = trio.Event(), trio.Event()
        await nursery.start(self._open_layers)

    async def _open_layers(self, task_status: trio.TaskStatus) -> None:
        async with on_demand():
            task_status.started()
            await self._layers_end.wait()
        self._layers_ended.set()

    async def _main_loop_exit(self) -> None:
        """End what the test has left, while the loop can still run it."""
        tasks = _asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        self._loop_running = True
        with trio.move_on_after(GRACE):
            while not all(task.done() for task in tasks):
                await self._main_loop_one()
        self._loop_running = False
        self._layers_end.set()
        await self._layers_ended.wait()
        await super()._main_loop_exit()

    def _SyncTrioEventLoop__run_in_greenlet(self, function: Callable[..., Any], *args: Any) -> Any:  # noqa: N802
        with _in_trio():
            return super()._SyncTrioEventLoop__run_in_greenlet(function, *args)

    def _close(self) -> None:
        with _in_trio():
            super()._close()


class _Policy(_asyncio.DefaultEventLoopPolicy):  # type: ignore[misc]
    _loop_factory = LoopOnTrio


def use_for_all() -> None:
    """From now on, every new loop of this process is a :class:`LoopOnTrio`, but for those inside of a Trio run."""
    fallback: Any = trio_asyncio._loop._FakedPolicy
    fallback.policy = _Policy()
