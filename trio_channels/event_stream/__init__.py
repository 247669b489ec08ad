"""Server-sent events over the history of the channel layer: a browser that comes back gets what it has missed.

::

    urlpatterns = [path("events/", EventStream.as_view(groups=["news", "room:lobby"]))]
"""

from __future__ import annotations

from .beginning import stream_position
from .signing import sign_stream
from .stream import EventStream

__all__ = ["EventStream", "sign_stream", "stream_position"]
