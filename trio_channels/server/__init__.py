"""hypercorn's Trio worker, safe to expose: limits, and answers to the defects that were measured in it.

:func:`serve` embeds a server. :func:`install` does the same to the hypercorn command line, where it is called by
itself. What is answered, and how: the page "hypercorn" of the documentation.
"""

from __future__ import annotations

from .connections import ServerStatistics
from .hardening import install
from .run import serve, statistics

__all__ = ["ServerStatistics", "install", "serve", "statistics"]
