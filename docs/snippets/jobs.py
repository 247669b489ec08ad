"""Work in other processes: send, handle, run."""

from collections.abc import Callable
from typing import Any

import trio
from django.http import HttpRequest, HttpResponse
from trio_channels.consumer import SyncConsumer
from trio_channels.layers import get_channel_layer
from trio_channels.layers.base import ChannelLayer
from trio_channels.routing import ChannelNameRouter, ProtocolTypeRouter
from trio_channels.sync import async_to_sync
from trio_channels.worker import Worker

make_thumbnail: Callable[[str], None] = print


def order_thumbnail(request: HttpRequest) -> HttpResponse:
    layer = get_channel_layer()
    async_to_sync(layer.send)("thumbnails", {"type": "thumbnails.make", "path": request.POST["path"]})
    return HttpResponse(status=202)


class ThumbnailConsumer(SyncConsumer):
    def thumbnails_make(self, message: dict[str, Any]) -> None:
        make_thumbnail(message["path"])
        async_to_sync(self.channel_layer.group_send)("pages", {"type": "thumbnail.made", "path": message["path"]})


async def work(layer: ChannelLayer) -> None:
    worker = Worker(application, ["thumbnails"], layer, concurrency=4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.sleep(60)
        worker.drain()


application = ProtocolTypeRouter(
    {
        # "http": ..., "websocket": ...,
        "channel": ChannelNameRouter({"thumbnails": ThumbnailConsumer.as_asgi()}),
    }
)
