"""A process that prints the messages to the group ``room``, up to the one of the type ``last``."""

from __future__ import annotations

import json

import trio

from trio_channels.layers import Gap, get_channel_layer


async def main() -> None:
    layer = get_channel_layer()
    assert layer is not None
    async with layer, layer.subscribe("room") as events:
        print("ready", flush=True)
        async for event in events:
            assert not isinstance(event, Gap), event
            print(json.dumps(event), flush=True)
            if event["type"] == "last":
                return


if __name__ == "__main__":
    trio.run(main)
