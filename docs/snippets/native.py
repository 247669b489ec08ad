from collections.abc import AsyncIterator

from trio_channels import WebSocket, websocket
from trio_channels.layers import Gap, InMemoryChannelLayer
from trio_channels.routing import ProtocolTypeRouter

layer = InMemoryChannelLayer()


@websocket
async def chat(ws: WebSocket) -> None:
    await ws.accept()
    async with layer.subscribe("room") as events:
        ws.start_soon(ws.send_each, texts(events))
        async for text in ws:
            await layer.group_send("room", {"type": "chat.message", "text": text})


async def texts(events: AsyncIterator[dict[str, str] | Gap]) -> AsyncIterator[str]:
    async for event in events:
        yield "some messages are missing here" if isinstance(event, Gap) else event["text"]


application = ProtocolTypeRouter({"websocket": chat})
