"""Taking exception groups apart."""

from __future__ import annotations

import pytest
import trio

from trio_channels._concurrency.exception_groups import bare, leaves, split_cancelled

ONE, TWO = ValueError("one"), OSError("two")


def nested(*errors: BaseException) -> BaseException:
    return BaseExceptionGroup("outer", [BaseExceptionGroup("inner", errors)])


def test_leaves_are_found_at_every_depth() -> None:
    assert list(leaves(BaseExceptionGroup("", [nested(ONE), TWO]))) == [ONE, TWO]
    assert list(leaves(ONE)) == [ONE]


def test_bare_unwraps_groups_of_one() -> None:
    assert bare(nested(ONE)) is ONE
    assert bare(ONE) is ONE
    several = bare(nested(ONE, TWO))
    assert isinstance(several, BaseExceptionGroup)
    assert several.exceptions == (ONE, TWO)


async def test_split_cancelled_parts_cancellations_from_failures() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(trio.Cancelled) as caught:
            await trio.lowlevel.checkpoint()
    cancelled = caught.value
    assert split_cancelled(cancelled) == (cancelled, None)
    assert split_cancelled(ONE) == (None, ONE)
    first, rest = split_cancelled(nested(cancelled, ONE))
    assert first is not None
    assert rest is not None
    assert (list(leaves(first)), list(leaves(rest))) == ([cancelled], [ONE])
