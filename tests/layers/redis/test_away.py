"""A Redis that is away, or refuses, when a layer is opened."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import hiredis
import pytest
import trio
import trio.testing

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.layers.redis.connection import ConnectionLost, Misconfigured
from trio_channels.layers.redis.contact import REMIND_AFTER, Outage
from trio_channels.layers.redis.hosts import parse_host

from ...certificate import make_certificate
from ...ports import free_port
from ...redis_server import RedisServer
from .world import until

OwnRedis = Callable[..., RedisServer]
Answer = Callable[[trio.SocketStream], Awaitable[None]]

#: Seconds of the layers here.
TIMEOUT = 2.0


async def reply(text: bytes, stream: trio.SocketStream) -> None:
    """Answer each command with one error."""
    parser = hiredis.Reader()
    while data := await stream.receive_some():
        parser.feed(data)
        while parser.gets() is not False:
            await stream.send_all(text + b"\r\n")


async def say_hypertext(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def hang_up(stream: trio.SocketStream) -> None:
    await stream.receive_some()


async def stay_silent(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[int]:
    """A server on a port of its own."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                await answer(stream)
            except trio.BrokenResourceError:
                pass

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


TRANSIENT: dict[str, Answer] = {
    "loading": partial(reply, b"-LOADING Redis is loading the dataset in memory"),
    "no master": partial(reply, b"-MASTERDOWN Link with MASTER is down"),
    "replica": partial(reply, b"-READONLY You can't write against a read only replica."),
    "cluster down": partial(reply, b"-CLUSTERDOWN The cluster is down"),
    "too many clients": partial(reply, b"-ERR max number of clients reached"),
    "hangs up": hang_up,
    "silent": stay_silent,
}
PERMANENT: dict[str, Answer] = {
    "password": partial(reply, b"-WRONGPASS invalid username-password pair or user is disabled."),
    "no password": partial(reply, b"-NOAUTH Authentication required."),
    "no right": partial(reply, b"-NOPERM this user has no permissions to run the 'hello' command"),
    "needless password": partial(reply, b"-ERR AUTH <password> called without any password configured"),
    "protected": partial(reply, b"-DENIED Redis is running in protected mode"),
    "database": partial(reply, b"-ERR DB index is out of range"),
    "old version": partial(reply, b"-ERR unknown command `HELLO`"),
    "no Redis": say_hypertext,
}


@pytest.mark.parametrize("case", TRANSIENT)
async def test_transient_cause_is_waited_for(case: str, caplog: pytest.LogCaptureFixture) -> None:
    async with answering(TRANSIENT[case]) as port:
        layer = RedisStreamsChannelLayer(hosts=[f"redis://127.0.0.1:{port}"], timeout=TIMEOUT)
        async with layer.open_patiently():
            (shard,) = layer.shard_statistics()
            assert shard.state == "connecting"
            with pytest.raises(ChannelLayerUnavailable):
                await layer.group_send("room", {"type": "test"})
    lines = [record for record in caplog.records if "is not available" in record.message]
    assert [record.levelno for record in lines] == [logging.WARNING]
    assert all("<" not in record.message and record.exc_info is None for record in caplog.records)


@pytest.mark.parametrize("case", PERMANENT)
async def test_permanent_cause_is_an_error_at_once(case: str) -> None:
    async with answering(PERMANENT[case]) as port:
        login, database = ("", "") if case == "old version" else (":secret@", "/1")
        layer = RedisStreamsChannelLayer(hosts=[f"redis://{login}127.0.0.1:{port}{database}"], timeout=60)
        for opening in (layer.open_patiently(), layer):
            with pytest.raises(Misconfigured) as refused:
                async with opening:
                    raise AssertionError("opened")
            assert "<Shard" not in str(refused.value)
            assert "secret" not in str(refused.value)


async def test_refused_connection_is_told_in_words(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    layer = RedisStreamsChannelLayer(hosts=[f"redis://127.0.0.1:{port}"], timeout=TIMEOUT)
    async with layer.open_patiently():
        pass
    (record,) = caplog.records
    assert record.message.endswith(
        f"is not available: the connection to Redis at 127.0.0.1:{port} failed: Connection refused. "
        f"Trying again until it is."
    )


async def test_unknown_host_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    layer = RedisStreamsChannelLayer(hosts=["redis://no-such-host.invalid"], timeout=TIMEOUT)
    async with layer.open_patiently():
        assert layer.shard_statistics()[0].state == "connecting"
    assert len(caplog.records) == 1


async def test_name_that_is_none_is_an_error() -> None:
    layer = RedisStreamsChannelLayer(hosts=[("a" * 70 + ".example", 6379)], timeout=60)
    with pytest.raises(Misconfigured):
        async with layer.open_patiently():
            raise AssertionError("opened")


@pytest.mark.parametrize("reply_of_all", [True, False])
async def test_sentinels_that_refuse_are_an_error_if_all_do(reply_of_all: bool) -> None:
    async with answering(PERMANENT["no password"]) as port:
        others = port if reply_of_all else free_port()
        sentinels = {"sentinels": [("127.0.0.1", port), ("127.0.0.1", others)], "master_name": "mymaster"}
        layer = RedisStreamsChannelLayer(hosts=[sentinels], timeout=TIMEOUT)
        if reply_of_all:
            with pytest.raises(Misconfigured):
                await layer.__aenter__()
        else:
            async with layer.open_patiently():
                assert layer.shard_statistics()[0].state == "connecting"


async def test_sentinel_of_another_kind_is_an_error() -> None:
    async with answering(partial(reply, b":1")) as port:
        layer = RedisStreamsChannelLayer(hosts=[{"sentinels": [("127.0.0.1", port)], "master_name": "mymaster"}])
        with pytest.raises(Misconfigured, match="does not answer like Redis"):
            async with layer.open_patiently():
                raise AssertionError("opened")


# -- TLS --------------------------------------------------------------------------------------------------------------


async def test_certificate_that_is_not_trusted_is_an_error(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def greet(stream: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await trio.SSLStream(stream, context, server_side=True).do_handshake()

    async with answering(greet) as port:
        layer = RedisStreamsChannelLayer(hosts=[f"rediss://127.0.0.1:{port}"], timeout=60)
        with pytest.raises(Misconfigured, match="certificate verify failed"):
            async with layer.open_patiently():
                raise AssertionError("opened")


async def test_tls_to_a_silent_server_is_waited_for_with_a_hint(
    own_redis: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    layer = RedisStreamsChannelLayer(hosts=[f"rediss://127.0.0.1:{own_redis().port}"], timeout=TIMEOUT)
    async with layer.open_patiently():
        assert "if it has no TLS, use redis://" in caplog.records[0].message


async def test_tls_to_another_kind_of_server_is_an_error() -> None:
    async with answering(say_hypertext) as port:
        layer = RedisStreamsChannelLayer(hosts=[f"rediss://127.0.0.1:{port}"], timeout=60)
        with pytest.raises(Misconfigured, match=r"(?i)wrong version number|record layer failure"):
            async with layer.open_patiently():
                raise AssertionError("opened")


async def test_server_that_ends_during_the_handshake_is_waited_for() -> None:
    async with answering(hang_up) as port:
        layer = RedisStreamsChannelLayer(hosts=[f"rediss://127.0.0.1:{port}"], timeout=TIMEOUT)
        async with layer.open_patiently():
            assert layer.shard_statistics()[0].state == "connecting"


# -- when it comes ----------------------------------------------------------------------------------------------------


async def test_layer_works_when_redis_comes(own_redis: OwnRedis, caplog: pytest.LogCaptureFixture) -> None:
    server = own_redis()
    server.kill()
    layer = RedisStreamsChannelLayer(hosts=[server.url], timeout=TIMEOUT)
    async with layer.open_patiently():
        with pytest.raises(ChannelLayerUnavailable):
            await layer.group_send("room", {"type": "test"})
        await trio.to_thread.run_sync(server.start)
        await until(lambda: layer.shard_statistics()[0].state == "working")
        async with layer.subscribe("room") as events:
            await layer.group_send("room", {"type": "test"})
            assert await anext(events) == {"type": "test"}
    away, back = (record.message for record in caplog.records)
    assert "is not available" in away
    assert back.endswith(f"is available again, at 127.0.0.1:{server.port}")


async def test_refusal_after_a_wait_is_told_once(own_redis: OwnRedis, caplog: pytest.LogCaptureFixture) -> None:
    server = own_redis("--requirepass", "right")
    server.kill()
    layer = RedisStreamsChannelLayer(hosts=[f"redis://:wrong@127.0.0.1:{server.port}"], timeout=TIMEOUT)
    async with layer.open_patiently():
        await trio.to_thread.run_sync(server.start)
        await until(lambda: len(caplog.records) == 2)
        for _ in range(2):  # further attempts have failed
            with pytest.raises(ChannelLayerUnavailable):
                await layer.group_send("room", {"type": "test"})
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]
    assert caplog.records[1].message.endswith("Waiting does not help: correct it.")


async def test_reader_without_a_right_is_told(own_redis: OwnRedis, caplog: pytest.LogCaptureFixture) -> None:
    server = own_redis()
    for command in ("reset", "on", "nopass", "~*", "+@all", "-xread"):
        server.ask("ACL", "SETUSER", "blind", command)
    layer = RedisStreamsChannelLayer(hosts=[f"redis://blind:any@127.0.0.1:{server.port}"], timeout=TIMEOUT)
    async with layer.open_patiently():
        await until(lambda: bool(caplog.records))
        await layer.group_send("room", {"type": "test"})
    assert "no messages arrive" in caplog.records[0].message
    assert "xread" in caplog.records[0].message
    assert caplog.records[0].levelno == logging.ERROR


async def test_cancelled_opening_leaves_nothing_open() -> None:
    async with answering(stay_silent) as port:
        layer = RedisStreamsChannelLayer(hosts=[f"redis://127.0.0.1:{port}"], timeout=60)
        with trio.move_on_after(0.01) as scope:
            async with layer.open_patiently():
                raise AssertionError("opened")
        assert scope.cancelled_caught
        assert "open in 0 Trio runs" in repr(layer)


async def test_layer_without_a_backend_is_opened_as_ever() -> None:
    layer = InMemoryChannelLayer()
    async with layer.open_patiently() as opened:
        assert opened is layer


async def test_long_outage_is_told_ever_more_rarely(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage("Redis shard {asgi:0}")
    for _ in range(24 * 60):
        outage.failed(ConnectionLost("refused"))
        await trio.sleep(REMIND_AFTER)
    outage.ended(parse_host("redis://there"))
    lines = [record.message for record in caplog.records]
    assert lines[0].endswith("is not available: refused. Trying again until it is.")
    assert [line.split()[8] for line in lines[1:7]] == ["60", "120", "240", "480", "960", "1920"]
    assert len(lines) == 31
    assert lines[-1].endswith("is available again, at there:6379")
