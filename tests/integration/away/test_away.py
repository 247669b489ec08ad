"""Redis away at the start: the server waits for it, or ends with a code on which nobody starts it again."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionRejected

from trio_channels.layers.redis import RedisStreamsChannelLayer

from ...process import Program, program
from ...redis_server import RedisServer, needs_redis
from ..server.conftest import Server

pytestmark = [pytest.mark.faults, needs_redis]

PASSWORD = "hunter2"
APPLICATION = "tests.integration.away.urls:application"
SERVE = ("-m", "trio_channels", "serve", APPLICATION, "--bind=127.0.0.1:0")
#: Each way to serve, and the processes.
WAYS: dict[str, tuple[tuple[str, ...], int]] = {
    "serve": (SERVE, 1),
    "serve, two": ((*SERVE, "--workers=2"), 2),
    "hypercorn": (("-m", "hypercorn", "--worker-class=trio", APPLICATION, "--bind=127.0.0.1:0"), 1),
    "runserver": (("-m", "django", "runserver", "0", "--noreload", "--skip-checks"), 1),
}
WORKER = ("-m", "django", "runworker", "jobs")


def run(arguments: tuple[str, ...], **config: Any) -> AbstractAsyncContextManager[Program]:
    """A process of the project, with this configuration of its channel layer."""
    return program(
        *arguments,
        DJANGO_SETTINGS_MODULE="tests.integration.away.site",
        TESTS_CONFIG=json.dumps(config),
        PYTHONUNBUFFERED="1",
    )


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis that is not started yet."""
    server = RedisServer(
        "--requirepass", PASSWORD, "--user", "weak", "on", f">{PASSWORD}", "~*", "-@all", "+hello", "+auth"
    )
    yield server
    server.close()


def host(redis: RedisServer, password: str = PASSWORD) -> str:
    return f"redis://:{password}@127.0.0.1:{redis.port}"


async def served(process: Program, processes: int) -> Server:
    pattern = r"(?:Running on|server on Trio at) http://\S+:(\d+)[ /]"
    return Server(int((await process.said(pattern, times=processes))[0]))


async def until_status(server: Server, status: int) -> None:
    while (await server.request("GET", "/healthz")).status != status:
        pass


def assert_told_once(text: str, processes: int) -> None:
    """One line for the outage and one for its end, in each process, in words."""
    assert text.count("is not available") == text.count("is available again") == processes, text
    assert "Traceback" not in text, text
    assert re.search(r"<[A-Z]\w+ ", text) is None, text


@pytest.mark.parametrize("way", WAYS)
async def test_server_that_starts_before_redis_serves(way: str, redis: RedisServer) -> None:
    arguments, processes = WAYS[way]
    async with run(arguments, hosts=[host(redis)]) as process:
        server = await served(process, processes)
        await process.said("is not available", times=processes)
        assert (await server.request("GET", "/hello/")).body == b"hello"
        assert (await server.request("GET", "/healthz")).status == 503
        with pytest.raises(ConnectionRejected) as rejected:
            async with server.websocket("/room/"):
                pass
        assert rejected.value.status_code == 503
        await trio.to_thread.run_sync(redis.start)
        await process.said("is available again", times=processes)
        await until_status(server, 200)
        async with server.websocket("/room/") as client:
            await client.send_message("here I am")
            assert await client.get_message() == "here I am"
        process.process.send_signal(signal.SIGTERM)
        await process.ends()
    assert_told_once(process.text, processes)


@pytest.mark.parametrize("way", ["serve", "serve, two"])
async def test_server_that_waits_ends_on_sigterm(way: str, redis: RedisServer) -> None:
    arguments, processes = WAYS[way]
    async with run(arguments, hosts=[host(redis)]) as process:
        await served(process, processes)
        process.process.send_signal(signal.SIGTERM)
        assert await process.ends() == 0
    assert "Traceback" not in process.text


async def test_worker_that_starts_before_redis_works(redis: RedisServer) -> None:
    async with run(WORKER, hosts=[host(redis)]) as process:
        await process.said("is not available")
        await trio.to_thread.run_sync(redis.start)
        async with RedisStreamsChannelLayer(hosts=[host(redis)]) as layer:
            await layer.send("jobs", {"type": "job.do"})
        await process.said("the job is done")
        process.process.send_signal(signal.SIGTERM)
        assert await process.ends() == 0
    assert process.text.count("is not available") == 1
    assert "Traceback" not in process.text


#: Configurations that waiting does not help, and a part of the reason in the log.
PERMANENT: dict[str, tuple[dict[str, Any], str]] = {
    "wrong password": ({"password": "wrong"}, "WRONGPASS"),
    "no password": ({"password": None}, "NOAUTH"),
    "no right": ({"username": "weak", "password": PASSWORD}, "NOPERM"),
    "no database": ({"db": 4000}, "DB index is out of range"),
    "no Redis": ({"port": None}, "Protocol error"),
    "bad address": ({"port": 70_000}, "an address in hosts must be"),
}


@pytest.fixture
async def no_redis() -> AsyncIterator[int]:
    """The port of a server of another kind."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def entry(case: str, redis: RedisServer, no_redis: int) -> dict[str, Any]:
    options = {"host": "127.0.0.1", "port": redis.port, "password": PASSWORD, **PERMANENT[case][0]}
    options["port"] = options["port"] or no_redis
    return {name: value for name, value in options.items() if value is not None}


@pytest.mark.parametrize("case", PERMANENT)
async def test_permanent_cause_ends_the_start(case: str, redis: RedisServer, no_redis: int) -> None:
    redis.start()
    for name, (arguments, _) in {**WAYS, "runworker": (WORKER, 1)}.items():
        if name == "hypercorn":  # whose parent process loses the exit code
            arguments = (*arguments, "--workers=0")
        async with run(arguments, hosts=[entry(case, redis, no_redis)]) as process:
            code = await process.ends()
        assert code == (1 if name == "runserver" else 3), (name, process.text)
        assert "Traceback" not in process.text, (name, process.text)
        assert process.text.count(PERMANENT[case][1]) == 1, (name, process.text)
        assert PASSWORD not in process.text


async def test_wrong_key_ends_the_start(redis: RedisServer) -> None:
    redis.start()
    async with run(SERVE, hosts=[host(redis)], symmetric_encryption_keys=[5]) as process:
        assert await process.ends() == 3
    assert "symmetric_encryption_keys" in process.text
    assert "Traceback" not in process.text
