import logging

from django.http import HttpRequest, JsonResponse
from trio_channels import WebSocket, websocket
from trio_channels.layers import get_channel_layer

logger = logging.getLogger(__name__)


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
        logger.info("%d keys are here", len(changes.state))
        async for _ in changes:
            logger.info("%d keys are here", len(changes.state))
