from __future__ import annotations

import pytest

from trio_channels._concurrency.nothing import NOTHING


async def test_block_raises_its_own_exception() -> None:
    with pytest.raises(KeyError), NOTHING:
        raise KeyError
    with pytest.raises(KeyError):
        async with NOTHING:
            raise KeyError


async def test_value_is_none() -> None:
    with NOTHING as given:
        assert given is None
    async with NOTHING as given:
        assert given is None


def test_blocks_keep_no_bound_method() -> None:
    """``with`` keeps what it finds: a bound method would be another one for each block."""
    assert NOTHING.__exit__ is NOTHING.__exit__
    assert NOTHING.__aexit__ is NOTHING.__aexit__
