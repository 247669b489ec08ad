"""A process that prints what comes to the group ``room``, until a message says that it was the last."""

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
