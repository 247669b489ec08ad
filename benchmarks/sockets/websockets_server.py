"""The package ``websockets`` on uvloop: ``python -m benchmarks.sockets.websockets_server <port>``."""

from __future__ import annotations

import asyncio
import sys

import uvloop
import websockets
from websockets.asyncio.server import ServerConnection, broadcast, serve

from .consumers import TEXT

members: set[ServerConnection] = set()


async def connection(client: ServerConnection) -> None:
    echoes = client.request is not None and client.request.path == "/echo/"
    if not echoes:
        members.add(client)
    try:
        async for text in client:
            if echoes:
                await client.send(text)
                continue
            for _ in range(int(text)):
                broadcast(members, TEXT)
                await asyncio.sleep(0)
    except websockets.ConnectionClosedError:
        return
    finally:
        members.discard(client)


async def main(port: int) -> None:
    async with serve(connection, "127.0.0.1", port, backlog=1_000, compression=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
