"""Two server processes with a Redis: the requests of one session come to both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import pytest

from ...integration.server.conftest import Server
from ...process import Program, program
from ...redis_server import RedisServer, needs_redis
from .client import NDJSON
from .test_streams_served import streaming

pytestmark = [pytest.mark.faults, needs_redis]

SERVE = ("-m", "trio_channels", "serve", "tests.topics.long_polling.two_site:application", "--bind=127.0.0.1:0")


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


def path_of(token: str | None) -> str:
    return "/socket/longpoll?vsn=2.0.0" + (f"&token={quote(token, safe='')}" if token else "")


async def ask(server: Server, method: str, token: str | None = None, *frames: Any) -> Any:
    body = "\n".join(map(json.dumps, frames)).encode()
    return json.loads((await server.request(method, path_of(token), NDJSON if frames else [], body)).body)


async def receive(server: Server, token: str, count: int) -> list[Any]:
    got: list[Any] = []
    while len(got) < count:
        answer = await ask(server, "GET", token)
        assert answer["status"] in (200, 204)
        got += map(json.loads, answer["messages"])
    return got


async def test_session_is_reached_through_any_process(redis: RedisServer) -> None:
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.topics.long_polling.two_settings",
        "TESTS_REDIS": redis.url,
    }
    async with AsyncExitStack() as stack:
        programs: list[Program] = [await stack.enter_async_context(program(*SERVE, **environment)) for _ in range(2)]
        one, two = [Server(await process.port()) for process in programs]
        token = (await ask(one, "GET"))["token"]
        other = (await ask(two, "GET"))["token"]
        for each, theirs in ((token, two), (other, one)):
            assert (await ask(theirs, "POST", each, ["1", "1", "room:a", "phx_join", {}]))["status"] == 200
            assert [frame[3] for frame in await receive(theirs, each, 1)] == ["phx_reply"]

        for number in range(10):  # posts and polls at both
            there, here = (one, two) if number % 2 else (two, one)
            await ask(there, "POST", token, ["1", str(number), "room:a", "process", {}])
            ((_, ref, _, _, reply),) = await receive(here, token, 1)
            assert (ref, reply["response"]) == (str(number), programs[0].process.pid)

        await ask(one, "POST", other, *(["1", None, "room:a", "tell", number] for number in range(50)))
        for each, server in ((token, two), (other, one)):
            assert [frame[4] for frame in await receive(server, each, 50)] == list(range(50))

        streamed = (await ask(one, "GET"))["token"]
        async with streaming(two, path_of(streamed)) as events:
            await ask(one, "POST", streamed, ["1", "1", "room:a", "phx_join", {}])
            assert json.loads((await anext(events)).data)[3] == "phx_reply"
            await ask(one, "POST", streamed, *(["1", str(number), "room:a", "process", {}] for number in range(50)))
            frames = [json.loads((await anext(events)).data) for _ in range(50)]
            assert [frame[1] for frame in frames] == [str(number) for number in range(50)]
            programs[0].process.kill()
            assert [event async for event in events] == []  # it ends, so that the client notices
        await programs[0].ends()
        assert (await ask(two, "GET", token))["status"] == 410
        assert (await ask(two, "GET", other))["status"] == 204
