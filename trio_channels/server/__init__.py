"""hypercorn's Trio worker, safe to expose: limits, and fixes for the defects that were measured in it.

:func:`serve` runs a server in your own Trio run. :func:`install` hardens the worker of the hypercorn command line; your
application calls it there. The page "hypercorn" of the documentation lists the defects and their fixes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .hardening import install

if TYPE_CHECKING:
    from .connections import ServerStatistics
    from .run import serve, statistics

__all__ = ["ServerStatistics", "install", "serve", "statistics"]


def __getattr__(name: str) -> Any:
    """Import hypercorn when a server is asked for (PEP 562): an application alone does not need it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import connections, run

    return getattr(connections if name == "ServerStatistics" else run, name)
