"""The server of the table's cases in a process of its own, with Redis: hosts, prefix and port are its arguments."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import trio
from django.conf import settings
from hypercorn.config import Config

from tests.clients.application import HISTORY, make_application
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.server import serve

OPTIONS: dict[str, Any] = {"history": HISTORY, "capacity": 1000}


async def main() -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{sys.argv[3]}"]
    config.errorlog = None
    layer = RedisStreamsChannelLayer(hosts=json.loads(sys.argv[1]), prefix=sys.argv[2], **OPTIONS)
    async with layer, trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: serve(make_application(layer), config, task_status=task_status))
        print("serving", flush=True)


if __name__ == "__main__":
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)
    settings.configure()
    trio.run(main)
