"""The connections whose application runs on asyncio, inside of Trio: which consumers are left to move to Trio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_open: Counter[str] = Counter()
_opened: Counter[str] = Counter()


@dataclass(frozen=True)
class AsyncioStatistics:
    """The connections on asyncio in this process, by the full name of the consumer's class.

    Attributes:
        open: those that are open now.
        opened: all since the process has started.
    """

    open: dict[str, int]
    opened: dict[str, int]


def asyncio_statistics() -> AsyncioStatistics:
    """A snapshot of the connections on asyncio."""
    return AsyncioStatistics({name: count for name, count in _open.items() if count}, dict(_opened))


@contextmanager
def on_asyncio(consumer: str) -> Iterator[bool]:
    """Count a connection during the block; True if it is the first of its consumer class."""
    _opened[consumer] += 1
    _open[consumer] += 1
    try:
        yield _opened[consumer] == 1
    finally:
        _open[consumer] -= 1
