"""A Redis of a test's own, to be killed and flushed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ...redis_server import RedisServer


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    """Where the session's Redis is."""
    return redis_server.url


@pytest.fixture
def own_redis(redis_server: RedisServer) -> Iterator[Callable[..., RedisServer]]:
    """Starts a server with these options, for this test alone."""
    servers: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        server = RedisServer(*options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.close()
