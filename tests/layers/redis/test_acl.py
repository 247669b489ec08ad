"""The rights that the documentation gives the layer's user are enough, and are needed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_channels.layers.redis
from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.layers.redis.connection import ConnectionLost, check_version, open_connection
from trio_channels.layers.redis.hosts import parse_host
from trio_channels.layers.redis.topology import Hosts

from ...redis_server import RedisServer
from ...redis_setups import SentinelSetup

pytestmark = pytest.mark.slow

OwnRedis = Callable[..., RedisServer]

PACKAGE = Path(trio_channels.layers.redis.__file__).parent
PAGE = PACKAGE.parents[2] / "docs" / "how-to" / "redis.md"
LAST = {"type": "last"}


def documented_rule() -> list[str]:
    """The command of the documentation, in words."""
    [line] = [line for line in PAGE.read_text().splitlines() if line.startswith("ACL SETUSER")]
    return line.split()


def allowed() -> set[str]:
    return {word[1:].upper() for word in documented_rule() if word.startswith("+") and "@" not in word}


def commands_of_the_package() -> set[str]:
    """Every command that stands in the package's Lua, or is asked for in one call."""
    found: set[str] = set()
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.lua")]:
        source = path.read_text()
        found |= set(re.findall(r"(?:redis\.p?call|look)\('([A-Z]+)'", source))
        found |= set(re.findall(r"""(?:call|ask)\(\s*(?:[a-z]+, )?"([A-Z]+)"[,)]""", source))
    return found


async def use_everything(hosts: Any, **options: Any) -> None:
    layer = RedisStreamsChannelLayer(hosts=hosts, history={"kept": {"messages": 5, "seconds": 60}}, **options)
    async with layer, layer.subscribe("room") as events:
        with trio.fail_after(30):
            await layer.group_send("room", LAST)
            assert await anext(events) == LAST
            position = await layer.group_send("kept", LAST)
            assert (await layer.history("kept", since=position)).recovered
            channel = await layer.new_channel()
            await layer.send(channel, LAST)
            assert await layer.receive(channel) == LAST
            await layer.send("jobs", LAST)
            assert await layer.receive("jobs") == LAST
            queue = layer.work_queue("jobs")
            for settle in ("done", "bury", "retry"):
                await layer.send("jobs", LAST)
                async with queue.serve(claim_after=0.1) as source:
                    [delivery] = await source.take(1)
                    await trio.sleep(0.05)  # so long that it is renewed
                    await getattr(source, settle)(delivery, *{"done": (), "bury": ("why",), "retry": (0,)}[settle])
            assert await queue.requeue() == 1
            async with queue.serve(claim_after=0.1) as source:
                assert len([*await source.take(1), *await source.take(1)]) == 2
            assert await queue.discard() == 0
            # A batch goes out as a transaction.
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(layer.group_send, "room", LAST)
            await layer.flush()


async def connect(host: str) -> None:
    connection = await open_connection(parse_host(host))
    try:
        await check_version(connection)
    finally:
        await connection.aclose()


def test_every_command_in_the_package_is_in_the_documented_rule() -> None:
    commands = commands_of_the_package()
    assert {"XADD", "HGETALL", "SCAN", "DEL", "ROLE"} <= commands
    of_streams = {name for name in commands if name.startswith("X")}
    elsewhere = {"SENTINEL", "ROLE", "CLUSTER"}  # said beside the rule; sentinels have users of their own
    assert commands - of_streams - elsewhere <= allowed()


async def test_documented_user_can_do_everything_that_the_layer_does(own_redis: OwnRedis) -> None:
    server = own_redis()
    server.ask(*documented_rule())
    await use_everything([f"redis://chat:secret@127.0.0.1:{server.port}"])
    assert server.ask("ACL", "LOG") == []


async def test_user_without_a_password_is_logged_in(own_redis: OwnRedis) -> None:
    server = own_redis()
    server.ask("ACL", "SETUSER", "bob", "on", "nopass", "~*", "+@all")
    server.ask("ACL", "SETUSER", "default", "off")
    await connect(f"redis://bob@127.0.0.1:{server.port}")
    with pytest.raises(ConnectionLost, match="WRONGPASS"):
        await connect(f"redis://eve@127.0.0.1:{server.port}")


async def test_key_outside_the_prefix_is_out_of_the_users_reach(own_redis: OwnRedis) -> None:
    server = own_redis()
    server.ask(*documented_rule())
    layer = RedisStreamsChannelLayer(
        hosts=[f"redis://chat:secret@127.0.0.1:{server.port}"], prefix="another", timeout=2
    )
    with pytest.raises(ChannelLayerUnavailable, match=r"NOPERM|No permissions"):
        async with layer:
            pytest.fail("opened")


async def test_in_a_cluster_the_user_needs_one_right_more(own_redis: OwnRedis) -> None:
    server = own_redis("--cluster-enabled", "yes")
    server.ask("CLUSTER", "ADDSLOTS", *range(16_384))
    server.ask(*documented_rule(), "+cluster|slots")
    assert "`+cluster|slots`" in PAGE.read_text()
    await use_everything({"cluster": [f"redis://chat:secret@127.0.0.1:{server.port}"]})
    assert server.ask("ACL", "LOG") == []


async def test_with_sentinel_the_user_needs_one_right_more(redis_server: RedisServer) -> None:
    with SentinelSetup() as setup:
        setup.master.ask(*documented_rule(), "+role")
        assert "`+role`" in PAGE.read_text()
        host = {**setup.host, "username": "chat", "password": "secret"}
        assert (await Hosts([parse_host(host)]).locate(0)).address == ("127.0.0.1", setup.master.port)


async def test_wrong_password_and_none_at_all_are_refused_and_not_shown(own_redis: OwnRedis) -> None:
    server = own_redis()
    server.ask("ACL", "SETUSER", "chat", "on", ">hunter2", "~*", "+@all")
    server.ask("ACL", "SETUSER", "default", "resetpass")
    host = f"127.0.0.1:{server.port}"
    for wrong in (f"redis://chat:wrong@{host}", f"redis://{host}"):
        with pytest.raises(ConnectionLost, match=r"WRONGPASS|NOAUTH") as caught:
            await connect(wrong)
        assert "wrong" not in str(caught.value)
    await use_everything([f"redis://chat:hunter2@{host}"])
