"""A client of topics for Trio: of :mod:`trio_channels.topics`, and of other servers of the Phoenix Channels protocol 2.

::

    async with connect("wss://example.com/socket") as socket, socket.join("room:lobby") as room:
        reply = await room.push("message.new", {"text": "hello"})
        async for message in room:
            print(message.event, message.payload)

It needs ``trio-websocket``: install the extra ``client``. It needs no Django.
"""

from __future__ import annotations

from .coming_back import back_off, is_final
from .messages import Message, Rejoined
from .opening import connect
from .socket import ClientSocket, SocketStatistics
from .topic import ClientTopic

__all__ = ["ClientSocket", "ClientTopic", "Message", "Rejoined", "SocketStatistics", "back_off", "connect", "is_final"]
