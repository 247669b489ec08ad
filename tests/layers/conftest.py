"""One private Redis for all tests of the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..redis_server import WHY_NOT, RedisServer, find_redis_server

_servers: list[RedisServer] = []


def redis_url() -> str:
    """Where the session's Redis is; for code that pytest's fixtures do not reach."""
    return _servers[-1].url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The session's Redis."""
    if find_redis_server() is None:
        pytest.skip(WHY_NOT)
    server = RedisServer()
    server.start()
    _servers.append(server)
    yield server
    _servers.remove(server)
    server.close()
