"""Testing tools: an application is run in the test's own Trio run, and talked to as its server would.

::

    async def test_echo() -> None:
        async with WebsocketCommunicator(Echo.as_asgi(), "/ws/") as ws:
            assert await ws.connect() == (True, None)
            await ws.send_to(text_data="hello")
            assert await ws.receive_from() == "hello"
"""

from __future__ import annotations

from .application import ApplicationCommunicator
from .http import HttpCommunicator
from .scripted import ScriptedConnection
from .websocket import WebsocketCommunicator

__all__ = ["ApplicationCommunicator", "HttpCommunicator", "ScriptedConnection", "WebsocketCommunicator"]
