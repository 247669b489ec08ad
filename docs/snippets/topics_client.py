from collections.abc import Callable

import trio
from trio_channels.client import ClientTopic, Rejoined, connect
from trio_channels.exceptions import PushFailed


async def chat(url: str, room_name: str, show: Callable[[str], object] = print) -> None:
    """Says hello in a room, and shows all that is said there."""
    async with connect(url) as socket, socket.join(f"room:{room_name}", {"name": "ada"}) as room:
        show(room.response["title"])
        reply = await room.push("message.new", {"text": "hello"})
        show(f"{reply['length']} characters")
        async for message in room:
            if message.event == "message.new":
                show(message.payload["text"])
            elif isinstance(message, Rejoined) and not message.recovered:
                show("some messages are missing")


async def say(room: ClientTopic, text: str) -> bool:
    """Says a text; returns whether the server has taken it."""
    try:
        await room.push("message.new", {"text": text}, timeout=5)
    except PushFailed:
        return False
    return True


if __name__ == "__main__":
    trio.run(chat, "ws://127.0.0.1:8000/socket", "lobby")
