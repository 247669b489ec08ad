"""A server in a process of its own whose clients resume: each sends its position, and gets the missed messages."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import trio
from django.conf import settings
from hypercorn.config import Config

from trio_channels.layers.base import Gap
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.server import serve
from trio_channels.websocket import WebSocket, websocket

GROUP = "room"
#: The options of every layer of these tests.
OPTIONS: dict[str, Any] = {"history": {GROUP: {"messages": 5000, "seconds": 3600}}, "capacity": 1000}


def application(layer: RedisStreamsChannelLayer) -> Any:
    @websocket
    async def resume(ws: WebSocket) -> None:
        await ws.accept()
        since = json.loads(await ws.receive())["since"]
        async with layer.subscribe(GROUP, since=since) as events:
            joined = events.recovery[GROUP]
            await ws.send(json.dumps({"recovered": joined.recovered, "position": joined.position}))
            async for event in events:
                await ws.send(json.dumps(event.as_event() if isinstance(event, Gap) else event))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await resume(scope, receive, send)
            return
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    return app


async def main() -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[3]}"]
    config.errorlog = None
    layer = RedisStreamsChannelLayer(hosts=json.loads(sys.argv[1]), prefix=sys.argv[2], **OPTIONS)
    async with layer, trio.open_nursery() as nursery:
        (bind,) = await nursery.start(lambda task_status: serve(application(layer), config, task_status=task_status))
        print(bind.rsplit(":", 1)[1], flush=True)


if __name__ == "__main__":
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)
    settings.configure()
    trio.run(main)
