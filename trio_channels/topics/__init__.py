"""Topics: many channels over one WebSocket, with replies, for the clients of the Phoenix Channels protocol, version 2.

::

    class Room(Topic):
        pattern = "room:<slug:room>"

        @event("message.new")
        async def message_new(self, payload: NewMessage) -> Posted:
            await self.broadcast("message.new", {"text": payload.text})
            return Posted(...)

    urlpatterns = [path("socket/websocket", TopicSocket.as_asgi(topics=[Room]))]
"""

from __future__ import annotations

from ..exceptions import JoinRefused, Refused
from .broadcasting import broadcast
from .handlers import event
from .long_polling import LongPolling
from .socket import TopicSocket
from .topic import Topic

__all__ = ["JoinRefused", "LongPolling", "Refused", "Topic", "TopicSocket", "broadcast", "event"]
