from django.http import HttpRequest, JsonResponse

from trio_channels import WebSocket, websocket
from trio_channels.layers import get_channel_layer


@websocket
async def lobby(ws: WebSocket) -> None:
    await ws.accept()
    async with get_channel_layer().track("lobby", "a guest"):
        async for text in ws:
            await ws.send(text)


async def who(request: HttpRequest) -> JsonResponse:
    return JsonResponse(await get_channel_layer().presence("lobby"))


async def count() -> None:
    async with get_channel_layer().subscribe_presence("lobby") as changes:
        print(f"{len(changes.state)} keys are here")
        async for _ in changes:
            print(f"{len(changes.state)} keys are here")
