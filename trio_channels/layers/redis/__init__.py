"""A channel layer over Redis Streams, for any number of processes."""

from __future__ import annotations

from .layer import RedisStreamsChannelLayer

__all__ = ["RedisStreamsChannelLayer"]
