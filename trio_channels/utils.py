"""Stands for ``channels.utils``, whose functions are not needed here: the error of an import says what to use."""

from __future__ import annotations

from typing import Any

_INSTEAD = {
    "await_many_dispatch": "start a task for each source in a nursery, or self.start_soon(function) in a consumer",
    "name_that_thing": "call repr()",
}


def __getattr__(name: str) -> Any:
    if name in _INSTEAD:
        raise ImportError(f"trio_channels.utils has no {name}: {_INSTEAD[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
