import random
import secrets
from typing import Annotated, Any

import trio
from msgspec import Meta, Struct
from trio_channels.layers import get_channel_layer
from trio_channels.layers.base import Gap
from trio_channels.topics import JoinRefused, Refused, Topic, event

from .models import Message, latest_messages
from .rooms import ROOMS, may_write

QUIZ_SECONDS = 20
# No user can have this name: it has a space.
QUIZ_MASTER = "quiz master"


class Place(Struct):
    room: Annotated[str, Meta(max_length=50)]


class NewMessage(Struct):
    text: Annotated[str, Meta(min_length=1, max_length=Message.MAX_LENGTH, pattern="^[^\\0]*$")]
    push_id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class People(Topic):
    """Everybody who has a page open, and the room that the page shows."""

    pattern = "people"
    shows_presence = True

    async def join(self, params: Place) -> None:
        await self.look_at(params)

    @event("look_at")
    async def look_at(self, place: Place) -> None:
        await self.track(self.user.get_username() or "a visitor", {"room": place.room})


class Room(Topic):
    pattern = "room:<slug:room>"

    async def join(self, params: dict[str, Any]) -> dict[str, Any]:
        self.room: str = self.kwargs["room"]
        if self.room not in ROOMS:
            raise JoinRefused({"reason": "there is no such room"})
        return {"may_write": may_write(self.user, self.room)}

    @event("latest")
    async def latest(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {"messages": await latest_messages(self.room)}

    @event("say")
    async def say(self, new: NewMessage) -> None:
        if not may_write(self.user, self.room):
            raise Refused({"message": f"you may not write in {self.room}"})
        await self.publish(self.user.get_username(), new.text, new.push_id)
        if new.text == "/quiz":
            self.start_soon(self.quiz)

    async def publish(self, author: str, text: str, push_id: str) -> None:
        # A page that does not know whether its message has arrived sends it again: it is stored once, and broadcast
        # each time. Pages show each id once.
        message, _ = await Message.objects.aget_or_create(
            room=self.room, author=author, push_id=push_id, defaults={"text": text}
        )
        await self.broadcast("message", message.as_json())
        await get_channel_layer().group_send(f"quiz.{self.room}", {"type": "answer", "author": author, "text": text})

    async def quiz(self) -> None:
        first, second = random.randint(3, 12), random.randint(3, 12)
        async with get_channel_layer().subscribe(f"quiz.{self.room}") as answers:
            with trio.move_on_after(QUIZ_SECONDS):
                await self.announce(f"What is {first} times {second}? You have {QUIZ_SECONDS} seconds.")
                async for answer in answers:
                    if not isinstance(answer, Gap) and answer["text"].strip() == str(first * second):
                        await self.announce(f"{answer['author']} is right!")
                        return
        await self.announce(f"Time is up. It is {first * second}.")

    async def announce(self, text: str) -> None:
        await self.publish(QUIZ_MASTER, text, secrets.token_hex(16))
