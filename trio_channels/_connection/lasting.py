"""Tasks that outlive a request: they live in a nursery of the server's lifespan.

    lifespan of the application
      channel layers
        nursery          of lasting(): here are the sessions of long-polling

The rules:

1. The nursery begins when the channel layers are open, and ends before they are closed.
2. When the server begins to shut down, :attr:`Lasting.ending` is set, so that the tasks end as connections do. The end
   of the lifespan cancels the others.
3. An exception of a task would end the server: each task handles its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio


class Lasting:
    """The nursery of one lifespan."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.ending = trio.Event()  # the server shuts down
        self.parts: dict[type, Any] = {}  # objects of which a lifespan has one, by their class


_of_run: trio.lowlevel.RunVar[list[Lasting]] = trio.lowlevel.RunVar("trio_channels lasting")


@asynccontextmanager
async def lasting() -> AsyncIterator[Lasting]:
    """In the block, tasks that outlive a request may be started. Cancellation: they are cancelled."""
    failure: Exception | None = None
    all_of_run = _of_run.get([])
    _of_run.set(all_of_run)
    async with trio.open_nursery() as nursery:
        this = Lasting(nursery)
        all_of_run.append(this)
        try:  # an error is raised outside of the nursery, which would wrap it in a group
            yield this
        except Exception as error:
            failure = error
        finally:
            this.ending.set()
            all_of_run.remove(this)
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def current() -> Lasting | None:
    """That of this Trio run's lifespan, of several the latest; None if there is none."""
    all_of_run = _of_run.get([])
    return all_of_run[-1] if all_of_run else None


def end_all() -> None:
    """Tell the tasks that the server shuts down."""
    for this in _of_run.get([]):
        this.ending.set()
