"""Testing tools: run an application in the test's own Trio run, and exchange messages with it as a server does.

::

    async def test_echo() -> None:
        async with WebsocketCommunicator(Echo.as_asgi(), "/ws/") as ws:
            assert await ws.connect() == (True, None)
            await ws.send_to(text_data="hello")
            assert await ws.receive_from() == "hello"
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .application import ApplicationCommunicator
from .database import capture_on_commit_callbacks
from .events import ServerSentEvent
from .http import HttpCommunicator
from .layers import fresh_channel_layers
from .scripted import ScriptedConnection
from .topics import TopicCommunicator, TopicFrame, TopicReply
from .websocket import WebsocketCommunicator

if TYPE_CHECKING:
    from .lifespan import running_lifespan
    from .live import ChannelsLiveServerTestCase, LiveServer

__all__ = [
    "ApplicationCommunicator",
    "ChannelsLiveServerTestCase",
    "HttpCommunicator",
    "LiveServer",
    "ScriptedConnection",
    "ServerSentEvent",
    "TopicCommunicator",
    "TopicFrame",
    "TopicReply",
    "WebsocketCommunicator",
    "capture_on_commit_callbacks",
    "fresh_channel_layers",
    "running_lifespan",
]

_WITH_HYPERCORN = {
    "ChannelsLiveServerTestCase": ".live",
    "LiveServer": ".live",
    "running_lifespan": ".lifespan",
}


def __getattr__(name: str) -> Any:
    """Import on demand the parts that import hypercorn."""
    if name not in _WITH_HYPERCORN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WITH_HYPERCORN[name], __name__), name)
