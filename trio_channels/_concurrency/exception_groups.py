"""Take exception groups apart."""

from __future__ import annotations

from collections.abc import Iterator

import trio


def leaves(raised: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group and in the groups inside it; a bare exception itself."""
    if isinstance(raised, BaseExceptionGroup):
        for inner in raised.exceptions:
            yield from leaves(inner)
    else:
        yield raised


def bare(raised: BaseException) -> BaseException:
    """The only exception of a group, also of nested groups; a group of several as it is."""
    while isinstance(raised, BaseExceptionGroup) and len(raised.exceptions) == 1:
        raised = raised.exceptions[0]
    return raised


def split_cancelled(raised: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """The cancellations in an exception, and the rest: a nursery may group both. None for a part that is empty."""
    if isinstance(raised, BaseExceptionGroup):
        return raised.split(trio.Cancelled)
    return (raised, None) if isinstance(raised, trio.Cancelled) else (None, raised)
