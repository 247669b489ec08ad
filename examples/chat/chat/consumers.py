"""The WebSocket side of the chat: one :class:`ChatConsumer` for each open page.

A page sends ``{"message": "..."}``. It gets events, each with a ``kind``:

``welcome``
    after every connect: the page's own person (``you``), the ``people`` in the room, and the ``history``, oldest first
``message``
    one message: its ``id``, its author (``who``), its time (``when``), and the text (``message``)
``joined``, ``left``
    a person (``who``) has come, perhaps with another page or another name, or has gone
``error``
    the page's message was refused, and why
"""

from typing import Any

from trio_channels.db import database_sync_to_async
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer

from .models import Message
from .people import person_of, shown
from .rooms import ALL_ROOMS, group_name


class BadMessage(ValueError):
    """The page sent an invalid message. The text tells the reason."""


def message_text(content: Any) -> str:
    """The text of a page's message, stripped. Clients can send anything, so everything is checked."""
    text = content.get("message") if isinstance(content, dict) else None
    if not isinstance(text, str):
        raise BadMessage('Send {"message": "some text"}.')
    text = text.strip()
    if len(text) > Message.MAX_LENGTH:
        raise BadMessage(f"A message has at most {Message.MAX_LENGTH:,} characters; this one has {len(text):,}.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadMessage("The message holds half a character (a lone surrogate), which cannot be stored.") from None
    return text


class ChatConsumer(AsyncJsonWebsocketConsumer):
    """One page in one room.

    The methods run one at a time, in the order of the events, so they need no locks.
    """

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        self.group = group_name(self.room)
        self.person = person_of(self.scope["user"], self.scope["session"])

        await self.accept()
        # Join first, then read: a message from in between comes twice, and not never. The page knows it by its id.
        await self.channel_layer.group_add(self.group, self.channel_name)
        # Until this connection ends, in whatever way, this person is in the room, for all processes.
        await self.track(self.group, self.person["id"], {**self.person})
        await self.track(ALL_ROOMS, self.room, {"person": self.person["id"]})
        await self.welcome()

    # -- from the page ----------------------------------------------------------------------------------------------

    async def receive_json(self, content: Any) -> None:
        try:
            text = message_text(content)
        except BadMessage as error:
            await self.send_json({"kind": "error", "error": str(error)})
            return
        if text:
            await self.tell_the_room(await self.save(text))

    async def receive_invalid_json(self, text_data: str, error: Exception) -> None:
        # The default would close the connection.
        await self.send_json({"kind": "error", "error": "That is not JSON."})

    # -- from the channel layer ---------------------------------------------------------------------------------------

    async def tell_the_room(self, content: dict[str, Any]) -> None:
        """Send an event to every page in the room, including this one."""
        await self.channel_layer.group_send(self.group, {"type": "room.event", "content": content})

    async def room_event(self, event: dict[str, Any]) -> None:
        """Handle ``room.event``: the dot of the type becomes an underscore in the method's name."""
        await self.send_json(event["content"])

    async def presence_diff(self, event: dict[str, Any]) -> None:
        """Somebody has come or gone."""
        for metas in event["joins"].values():
            await self.send_json({"kind": "joined", "who": shown(metas[-1])})
        for person in event["departed"]:
            await self.send_json({"kind": "left", "who": shown(event["leaves"][person][-1])})

    async def channel_layer_gap(self, event: dict[str, Any]) -> None:
        """The layer may have lost messages for this page: send it the current state."""
        await self.welcome()

    # -- the rest -----------------------------------------------------------------------------------------------------

    async def welcome(self) -> None:
        # From here on, ``presence_diff`` gets the changes of what this returns.
        present = await self.watch_presence(self.group)
        people = [shown(metas[-1]) for metas in present.values()]
        history = await self.history()
        await self.send_json({"kind": "welcome", "you": self.person, "people": people, "history": history})

    # The ORM waits for the database, so it runs in a thread. On the Trio thread all connections would wait for it.

    @database_sync_to_async
    def history(self) -> list[dict[str, Any]]:
        return [message.as_json() for message in Message.objects.latest_in(self.room)]

    @database_sync_to_async
    def save(self, text: str) -> dict[str, Any]:
        user = self.scope["user"]
        message = Message.objects.create(
            room=self.room,
            author=self.person["id"],
            author_name=self.person["name"],
            user=user if user.is_authenticated else None,
            text=text,
        )
        return message.as_json()
