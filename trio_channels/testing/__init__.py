"""Testing tools: run an application in the test's own Trio run, and exchange messages with it as a server does.

::

    async def test_echo() -> None:
        async with WebsocketCommunicator(Echo.as_asgi(), "/ws/") as ws:
            assert await ws.connect() == (True, None)
            await ws.send_to(text_data="hello")
            assert await ws.receive_from() == "hello"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .application import ApplicationCommunicator
from .http import HttpCommunicator
from .scripted import ScriptedConnection
from .websocket import WebsocketCommunicator

if TYPE_CHECKING:
    from .live import ChannelsLiveServerTestCase, LiveServer

__all__ = [
    "ApplicationCommunicator",
    "ChannelsLiveServerTestCase",
    "HttpCommunicator",
    "LiveServer",
    "ScriptedConnection",
    "WebsocketCommunicator",
]


def __getattr__(name: str) -> Any:
    """Import the live servers on demand: they import hypercorn."""
    if name not in ("ChannelsLiveServerTestCase", "LiveServer"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import live

    return getattr(live, name)
