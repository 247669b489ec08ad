"""Our consumers and Django on our server: ``python -m benchmarks.sockets.ours <port> [--bare]``; bare: on hypercorn."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config

from . import project
from .consumers import application


def main(port: str, *, bare: bool) -> None:
    project.set_up("trio_channels.layers.InMemoryChannelLayer", "trio_channels")
    project.make_views(trio.sleep)
    from trio_channels.asgi import get_asgi_application
    from trio_channels.routing import ProtocolTypeRouter

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "ERROR"
    config.backlog = 1_000
    router: Any = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": application("trio_channels")})
    if bare:  # imported after the application is made: before, that would harden hypercorn
        from hypercorn.trio import serve as bare_serve

        trio.run(partial(bare_serve, router, config))
    from trio_channels.server import serve

    trio.run(partial(serve, router, config))


if __name__ == "__main__":
    main(sys.argv[1], bare="--bare" in sys.argv)
