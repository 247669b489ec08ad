"""The Redis that the examples start for themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trio_channels.layers.redis import RedisStreamsChannelLayer

from ..redis_server import needs_redis

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import private_redis

sys.path.pop(0)


@needs_redis
async def test_layer_works_with_it_and_it_is_gone_after_the_block() -> None:
    with private_redis.private_redis() as url:
        async with RedisStreamsChannelLayer(hosts=[url]) as layer, layer.subscribe("room") as events:
            await layer.group_send("room", {"type": "hello"})
            assert await anext(aiter(events)) == {"type": "hello"}
    assert not Path(url.removeprefix("unix://")).parent.exists()


def test_without_a_redis_server_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_redis, "find_redis_server", lambda: None)
    with pytest.raises(SystemExit, match="no redis-server: install it"), private_redis.private_redis():
        pass


def test_program_that_is_no_redis_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_redis, "find_redis_server", lambda: "/bin/false")
    with pytest.raises(SystemExit, match="/bin/false did not start"), private_redis.private_redis():
        pass
