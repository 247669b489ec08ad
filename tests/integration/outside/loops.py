"""How many event loops are started."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import trio


@contextmanager
def counted_loops() -> Iterator[list[str]]:
    """In the block, each event loop that starts puts its kind into the list."""
    started: list[str] = []
    make_loop, run = asyncio.BaseEventLoop.__init__, trio.run

    def making_loop(*args: object) -> None:
        started.append("asyncio")
        make_loop(*args)  # type: ignore[arg-type]

    def running(*args: object, **kwargs: object) -> object:
        started.append("trio")
        return run(*args, **kwargs)  # type: ignore[arg-type]

    with patch.object(asyncio.BaseEventLoop, "__init__", making_loop), patch.object(trio, "run", running):
        yield started
