"""The bodies of posts that no session takes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from trio_channels.testing import HttpCommunicator

from ..rooms import ALL
from .client import LongPollClient, open_sessions, reply_of, routed, served, socket_of
from .test_requests import TOKENS

MIB = 2**20


@pytest.fixture
def peak() -> Iterator[Any]:
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1] - tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()


async def send_parts(post: HttpCommunicator, number: int, more: bool) -> None:
    part = b"x" * (MIB // 4)
    for left in reversed(range(number)):
        await post.send_input({"type": "http.request", "body": part, "more_body": more or left > 0})
        await wait_all_tasks_blocked()
    post._request_sent = True


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize("token", [None, TOKENS["forged"], TOKENS["without a channel"]])
async def test_body_that_no_session_takes_is_not_kept(peak: Any, method: str, token: str | None) -> None:
    async with served(routed(socket_of(*ALL).as_asgi())) as application:
        client = LongPollClient(application)
        client.token = token
        async with client.request(method) as post:
            before = peak()
            await send_parts(post, 16, more=False)
            assert (await reply_of(post)).status in (405, 410)
            assert peak() - before < MIB


async def test_post_during_another_is_not_kept(peak: Any) -> None:
    async with served(routed(socket_of(*ALL).as_asgi())) as application:
        client = LongPollClient(application)
        await client.open()
        async with client.request("POST") as first, client.request("POST") as second:
            await send_parts(first, 1, more=True)
            before = peak()
            await send_parts(second, 16, more=False)
            assert (await reply_of(second)).status == 409
            assert peak() - before < MIB
            await first.disconnect()
        await wait_all_tasks_blocked()
        assert not open_sessions()._receiving
        assert (await client.post([None, "1", "phoenix", "heartbeat", {}])).status == 200


async def test_next_post_may_come_with_the_answer() -> None:
    async with served(routed(socket_of(*ALL).as_asgi())) as application:
        client = LongPollClient(application)
        await client.open()
        seen = []

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            async def note(message: Any) -> None:
                seen.append(set(open_sessions()._receiving))
                await send(message)

            await application(scope, receive, note)

        client.application = watched
        assert (await client.post([None, "1", "phoenix", "heartbeat", {}])).status == 200
    assert seen == [set(), set()]
