"""hypercorn's HTTP/2, with its defects fixed: one connection in `protocol`, its parts in the other modules."""

from __future__ import annotations

from .protocol import Http2

__all__ = ["Http2"]
