"""A server in a process of its own, for bombs: an echo, by hypercorn as it is or hardened."""

from __future__ import annotations

import json
import os
import sys

import trio
from django.conf import settings
from hypercorn.config import Config


async def application(scope, receive, send):  # type: ignore[no-untyped-def]
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": "ok"})


async def main() -> None:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.websocket_max_message_size = 2**20
    if sys.argv[1] == "bare":
        from hypercorn.trio import serve
    else:
        from trio_channels.server import serve  # type: ignore[assignment]
    async with trio.open_nursery() as nursery:
        (bind,) = await nursery.start(lambda task_status: serve(application, config, task_status=task_status))
        print(bind.rsplit(":", 1)[1], flush=True)


if __name__ == "__main__":
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)
    settings.configure(TRIO_CHANNELS=json.loads(sys.argv[2]))
    trio.run(main)
