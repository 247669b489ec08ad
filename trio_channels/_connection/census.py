"""How many connections a Trio run has now, by the type of their scope."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import trio

_counter_of_run: trio.lowlevel.RunVar[Counter[str]] = trio.lowlevel.RunVar("trio_channels connections")


@contextmanager
def counted(kind: str) -> Iterator[None]:
    """Count a connection of that type for the length of the block."""
    try:
        counter = _counter_of_run.get()
    except LookupError:
        counter = Counter()
        _counter_of_run.set(counter)
    counter[kind] += 1
    try:
        yield
    finally:
        counter[kind] -= 1


def connections() -> dict[str, int]:
    """The connections of this Trio run: scope type -> how many there are now."""
    return dict(_counter_of_run.get(Counter()))
