"""The WebSocket side of the chat. Each page has one socket, which carries these topics:

``rooms``
    which rooms there are, who is in them, and what a person has not read. The reply to the join: the page's own person
    (``you``), and the ``rooms``. Then ``activity``, for each message: its ``room``, ``id``, ``when`` and ``author``.
``room:<name>``
    one room, as often as a page has rooms open. ``history`` asks for the last messages; ``message.new`` sends one,
    which everybody gets as ``message``; ``typing`` and ``read`` tell of the person. Who is there is its presence.
"""

from contextlib import suppress
from typing import Annotated, Any

from msgspec import Meta, Struct

from trio_channels.db import database_sync_to_async
from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.topics import Refused, Topic, TopicSocket, broadcast, event

from . import rooms
from .models import Message, Reading
from .people import Person, person_of


class NewMessage(Struct):
    """A message of a page. A page that cannot know whether it has arrived sends it again, with the same id."""

    text: str
    push_id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class Typing(Struct):
    typing: bool


class Read(Struct):
    id: Annotated[int, Meta(ge=0, le=2**63 - 1)]


def valid(text: str) -> str:
    """The text of a message, stripped. Clients can send anything."""
    text = text.strip()
    if not text:
        raise Refused({"reason": "invalid message", "message": "A message needs some text."})
    if len(text) > Message.MAX_LENGTH:
        why = f"A message has at most {Message.MAX_LENGTH:,} characters; this one has {len(text):,}."
        raise Refused({"reason": "invalid message", "message": why})
    if "\0" in text:
        raise Refused({"reason": "invalid message", "message": "The message holds a NUL, which cannot be stored."})
    return text


class ChatSocket(TopicSocket):
    """One page, and the person at it."""

    async def connect(self) -> None:
        self.person = person_of(self.scope["user"], self.scope["session"])
        await self.accept()


class ChatTopic(Topic):
    socket: ChatSocket

    @property
    def person(self) -> Person:
        return self.socket.person


class Rooms(ChatTopic):
    """All rooms. Its presence is made by :class:`Room`: a key is a room, and a meta a page in it."""

    pattern = rooms.ALL_ROOMS
    shows_presence = True

    # A plain method runs on a thread. The ORM waits for the database, and so would all connections on the Trio thread.
    def join(self, params: dict[str, Any]) -> dict[str, Any]:
        latest = Message.objects.latest_rooms()
        unread = Reading.objects.unread(self.person["id"], [room["name"] for room in latest])
        return {"you": self.person, "rooms": [{**room, "unread": unread.get(room["name"])} for room in latest]}


class Room(ChatTopic):
    """One room on one page. Its handlers run one at a time, in the order of the events, so they need no locks."""

    pattern = "room:<room:room>"
    shows_presence = True

    async def join(self, params: dict[str, Any]) -> dict[str, Any]:
        # Until the page leaves or its connection ends, in whatever way, this person is in the room, for all processes.
        await self.show(typing=False)
        await self.socket.track(rooms.GROUP_OF_ALL, self.kwargs["room"], {**self.person})
        return {"you": self.person}

    async def leave(self) -> None:
        # The room's own presence ends by itself. The page may go on with other rooms.
        with suppress(ChannelLayerUnavailable):  # then all of it ends with the connection
            await self.socket.untrack(rooms.GROUP_OF_ALL, self.kwargs["room"])

    async def show(self, *, typing: bool) -> None:
        await self.track(self.person["id"], {**self.person, "typing": typing})

    @event("history")
    def history(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The page has just come, or the channel layer cannot tell what it has missed."""
        return {"messages": [message.as_json() for message in Message.objects.latest_in(self.kwargs["room"])]}

    @event("message.new")
    async def message_new(self, payload: NewMessage) -> dict[str, Any]:
        message = await self.save(valid(payload.text), payload.push_id)
        # Also when it was stored before: the server may have ended in between. Pages show an id once.
        await self.broadcast("message", message)
        news = {
            "room": self.kwargs["room"],
            "author": message["who"]["id"],
            "id": message["id"],
            "when": message["when"],
        }
        await broadcast(rooms.ALL_ROOMS, "activity", news)
        return {"id": message["id"]}

    @event("typing")
    async def typing(self, payload: Typing) -> None:
        # Not a broadcast, which would stay in the history; and it ends with the connection.
        await self.show(typing=payload.typing)

    @event("read")
    def read(self, payload: Read) -> None:
        Reading.objects.mark(self.person["id"], self.kwargs["room"], payload.id)

    @database_sync_to_async
    def save(self, text: str, push_id: str) -> dict[str, Any]:
        user = self.user
        defaults = {
            "author": self.person["id"],
            "author_name": self.person["name"],
            "user": user if user.is_authenticated else None,
            "text": text,
        }
        message, _ = Message.objects.get_or_create(room=self.kwargs["room"], push_id=push_id, defaults=defaults)
        return message.as_json()
