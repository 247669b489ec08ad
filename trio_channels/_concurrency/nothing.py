"""A context manager that does nothing."""

from __future__ import annotations

from typing import Final


class _Nothing:
    """Like :func:`contextlib.nullcontext`, whose block keeps a bound method, 64 bytes: each connection has several."""

    __slots__ = ()

    @staticmethod
    def __enter__() -> None:
        return None

    @staticmethod
    def __exit__(*_exception: object) -> None:
        return None

    @staticmethod
    async def __aenter__() -> None:
        return None

    @staticmethod
    async def __aexit__(*_exception: object) -> None:
        return None


#: For ``with`` and ``async with``, any number of times. Cancellation: no checkpoint.
NOTHING: Final = _Nothing()
