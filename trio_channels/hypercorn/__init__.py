"""hypercorn's Trio worker, safe to expose: limits, and answers to the defects that were measured in it.

:func:`serve` embeds a server. :func:`install` does the same to the hypercorn command line, where it is called by
itself. What is answered, and how: the page "hypercorn" of the documentation.
"""

from __future__ import annotations

from ._install import install
from ._serve import serve, statistics
from ._server import ServerStatistics

__all__ = ["ServerStatistics", "install", "serve", "statistics"]
