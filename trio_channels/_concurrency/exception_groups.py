"""What is inside an exception group."""

from __future__ import annotations

from collections.abc import Iterator


def leaves(raised: BaseException) -> Iterator[BaseException]:
    """The exceptions of a group and of the groups in it; an exception that is no group, itself."""
    if isinstance(raised, BaseExceptionGroup):
        for inner in raised.exceptions:
            yield from leaves(inner)
    else:
        yield raised
