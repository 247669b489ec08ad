"""Django Channels, rebuilt on Trio and structured concurrency."""

from ._limits import Limits
from .exceptions import ConnectionClosed, TrioChannelsError
from .websocket import WebSocket, websocket

__all__ = ["ConnectionClosed", "Limits", "TrioChannelsError", "WebSocket", "websocket"]

__version__ = "0.1.0"
