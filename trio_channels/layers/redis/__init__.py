"""A channel layer over Redis Streams, for any number of processes."""

from __future__ import annotations

from ._layer import RedisStreamsChannelLayer

__all__ = ["RedisStreamsChannelLayer"]
