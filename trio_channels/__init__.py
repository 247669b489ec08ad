"""Django Channels, rebuilt on Trio and structured concurrency."""

from ._limits import DEFAULT_CHANNEL_LAYER, Limits
from .exceptions import ConnectionClosed, TrioChannelsError
from .websocket import WebSocket, websocket

__all__ = ["DEFAULT_CHANNEL_LAYER", "ConnectionClosed", "Limits", "TrioChannelsError", "WebSocket", "websocket"]

__version__ = "0.1.0"
