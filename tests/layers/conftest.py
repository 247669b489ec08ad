"""One private Redis, and one private Redis Cluster, for all tests of the session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ..redis_server import WHY_NOT, RedisServer, find_redis_server
from ..redis_setups import ClusterSetup

_servers: list[RedisServer] = []
_clusters: list[ClusterSetup] = []


def redis_url() -> str:
    """Where the session's Redis is; for code that pytest's fixtures do not reach."""
    return _servers[-1].url


def redis_cluster_hosts() -> dict[str, Any]:
    """Where the session's cluster is; for code that pytest's fixtures do not reach."""
    return _clusters[-1].hosts


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


@pytest.fixture(scope="session")
def redis_cluster(redis_server: RedisServer) -> Iterator[ClusterSetup]:
    """The session's cluster."""
    with ClusterSetup() as cluster:
        _clusters.append(cluster)
        yield cluster
        _clusters.remove(cluster)
