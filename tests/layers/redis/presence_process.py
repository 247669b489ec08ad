"""A process that tracks keys until it is killed."""

from __future__ import annotations

import json
import sys

import trio

from trio_channels.layers.redis import RedisStreamsChannelLayer, keys


async def main(url: str, prefix: str, first: int, count: int) -> None:
    layer = RedisStreamsChannelLayer(hosts=[url], prefix=prefix, presence={"keys": count}, timeout=60)
    async with layer:
        with layer.open_mailbox() as mailbox:
            async with trio.open_nursery() as nursery:
                for number in range(first, first + count):
                    nursery.start_soon(layer.track_channel, "room", mailbox.name, f"k{number}", {"n": number})
            print("ready", flush=True)
            await trio.sleep_forever()


if __name__ == "__main__":
    url, prefix, lease, first, count = json.loads(sys.argv[1])
    keys.LEASE = lease
    trio.run(main, url, prefix, first, count)
