"""The answer to each request."""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import quote

import pytest
import trio
from django.core.signing import Signer
from django.test import override_settings

from trio_channels.exceptions import ConfigurationError, DenyConnection
from trio_channels.testing import HttpCommunicator, WebsocketCommunicator
from trio_channels.topics import LongPolling, TopicSocket
from trio_channels.topics.long_polling.sessions import MARK

from ..rooms import ALL
from .client import NDJSON, LongPollClient, open_sessions, reply_of, routed, served, site, socket_of

JOIN = ["1", "1", "room:a", "phx_join", {}]
ECHO = ["1", "2", "room:a", "echo", {"n": 1}]
JOINED, ECHOED = (
    ["1", ref, "room:a", "phx_reply", {"status": "ok", "response": got}] for ref, got in (("1", {}), ("2", {"n": 1}))
)


@pytest.fixture
async def application() -> Any:
    async with served(routed(socket_of(*ALL).as_asgi())) as application:
        yield application


@pytest.fixture
async def client(application: Any) -> LongPollClient:
    client = LongPollClient(application)
    await client.open()
    return client


# -- sessions ---------------------------------------------------------------------------------------------------------


async def test_first_request_opens_a_session(application: Any) -> None:
    client = LongPollClient(application)
    reply = await client.open()
    assert (reply.http, reply.status, reply.messages) == (200, 410, [])
    assert reply.token is not None
    assert reply.token.startswith(MARK)
    assert reply.headers[b"cache-control"] == b"no-store"
    assert len(open_sessions()) == 1


async def test_posts_are_answered_by_polls(client: LongPollClient) -> None:
    assert (await client.post(JOIN, ECHO)).status == 200
    assert [await client.receive(), await client.receive()] == [JOINED, ECHOED]


async def test_post_of_another_type_is_one_message(client: LongPollClient) -> None:
    body = json.dumps(JOIN, indent=1).encode()
    assert (await client.ask("POST", body, [(b"content-type", b"application/json")])).status == 200
    assert await client.receive() == JOINED
    assert (await client.ask("POST", b"\xff")).status == 400
    assert (await client.poll()).status == 410


async def test_lines_may_end_as_windows_does_and_be_empty(client: LongPollClient) -> None:
    body = b"\r\n".join([json.dumps(JOIN).encode(), b"", json.dumps(ECHO).encode(), b""])
    assert (await client.ask("POST", body, NDJSON)).status == 200
    assert [await client.receive(), await client.receive()] == [JOINED, ECHOED]


async def test_poll_without_messages(client: LongPollClient, autojump_clock: trio.testing.MockClock) -> None:
    before = trio.current_time()
    reply = await client.poll()
    assert (reply.http, reply.status, reply.token) == (200, 204, client.token)
    assert 10 <= trio.current_time() - before < 15


async def test_message_ends_a_poll(client: LongPollClient) -> None:
    async with client.request("GET") as poll:
        await poll.send_request()
        await trio.testing.wait_all_tasks_blocked()
        await client.post(JOIN)
        assert (await reply_of(poll)).frames == [JOINED]


async def test_newer_poll_ends_the_older(client: LongPollClient) -> None:
    async with client.request("GET") as older, client.request("GET") as newer:
        for poll in (older, newer):
            await poll.send_request()
            await trio.testing.wait_all_tasks_blocked()
        assert (await reply_of(older)).status == 204
        await client.post(JOIN)
        assert (await reply_of(newer)).frames == [JOINED]


async def test_client_that_leaves_a_poll_loses_nothing(client: LongPollClient) -> None:
    async with client.request("GET") as poll:
        await poll.send_request()
        await trio.testing.wait_all_tasks_blocked()
        await poll.disconnect()
    await client.post(JOIN)
    assert await client.receive() == JOINED


# -- tokens -----------------------------------------------------------------------------------------------------------

FOREIGN = MARK + Signer(salt="trio_channels.topics.long_polling").sign("longpoll!0123/abcdef")
TOKENS = {
    "of a session that has ended": FOREIGN,
    "of another process": MARK + Signer(salt="trio_channels.topics.long_polling").sign("longpoll!none/abcdef"),
    "without a channel": MARK + Signer(salt="trio_channels.topics.long_polling").sign("/abcdef"),
    "forged": FOREIGN[:-1] + ("a" if FOREIGN[-1] != "a" else "b"),
    "of another key": MARK + Signer(key="other", salt="trio_channels.topics.long_polling").sign("longpoll!0123/abc"),
    "of another purpose": MARK + Signer(salt="else").sign("longpoll!0123/abcdef"),
    "without a signature": MARK + "longpoll!0123/abcdef",
    "empty": MARK,
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
async def test_token_without_a_session(application: Any, token: str, method: str) -> None:
    client = LongPollClient(application)
    client.token = token
    reply = await client.ask(method, b"" if method == "GET" else json.dumps(JOIN).encode(), NDJSON)
    assert (reply.http, reply.status, reply.token) == (200, 410, None)
    assert len(open_sessions()) == 0


async def test_session_is_found_by_signed_tokens_only(client: LongPollClient) -> None:
    signed = str(client.token)
    for forged in (signed[:-1] + ("a" if signed[-1] != "a" else "b"), signed.rpartition(":")[0], signed.upper()):
        client.token = MARK + forged.removeprefix(MARK)
        assert (await client.post(JOIN)).status == 410
    client.token = signed
    assert (await client.post(JOIN)).status == 200


async def test_post_without_a_token(application: Any) -> None:
    assert (await LongPollClient(application).post(JOIN)).status == 410
    assert len(open_sessions()) == 0


async def test_application_may_have_a_parameter_token() -> None:
    seen: list[str] = []

    class Socket(TopicSocket):
        async def connect(self) -> None:
            seen.append(self.params["token"])
            await self.accept()

    async with served(routed(Socket.as_asgi(topics=ALL))) as application:
        client = LongPollClient(application, "vsn=2.0.0&token=of-the-user")
        await client.open()
        await client.post(JOIN)
        assert await client.receive() == JOINED
    assert seen == ["of-the-user"]


async def test_token_that_comes_last_counts(client: LongPollClient) -> None:
    client.query += f"&token={quote(FOREIGN)}"
    assert (await client.post(JOIN)).status == 200


async def test_key_that_has_been_replaced_is_still_valid(client: LongPollClient, settings: Any) -> None:
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        assert (await client.post(JOIN)).status == 200


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD"])
async def test_other_methods(application: Any, method: str) -> None:
    reply = await LongPollClient(application).ask(method)
    assert (reply.http, reply.headers[b"allow"]) == (405, b"GET, POST, DELETE, OPTIONS")


@pytest.mark.parametrize("announced", [True, False])
async def test_long_body(client: LongPollClient, announced: bool) -> None:
    with override_settings(TRIO_CHANNELS={"MAX_BODY_SIZE": 1_000}):
        headers = [(b"content-length", b"1001")] if announced else []
        body = b"[]" if announced else b"[" * 1_001  # an announcement is enough
        assert (await client.ask("POST", body, [*NDJSON, *headers])).http == 413
        assert (await client.post(JOIN)).status == 200


async def test_slow_body(client: LongPollClient, autojump_clock: trio.testing.MockClock) -> None:
    request = client.request("POST")
    parts = iter([{"type": "http.request", "body": b"[", "more_body": True}] * 3)
    sent: list[Any] = []

    async def receive() -> Any:
        await trio.sleep(29)
        return next(parts, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    await client.application(request.scope, receive, send)
    assert sent[0]["status"] == 408


async def test_denied_client() -> None:
    async with served(routed(socket_of(*ALL).as_asgi())) as application:
        reply = await LongPollClient(application, "vsn=1.0.0").open()
    assert (reply.http, reply.status, reply.token) == (403, 403, None)


@pytest.mark.parametrize(
    ("given", "http", "status"), [(None, 403, 403), (401, 401, 403), (429, 429, 403), (503, 503, 500)]
)
async def test_denial_of_the_application(given: int | None, http: int, status: int) -> None:
    class Socket(TopicSocket):
        async def connect(self) -> None:
            raise DenyConnection(given, [(b"retry-after", b"7"), (b"content-length", b"3")], b"no!")

    async with served(routed(Socket.as_asgi())) as application:
        reply = await LongPollClient(application).open()
    assert (reply.http, reply.status) == (http, status)
    assert reply.headers.get(b"retry-after") == (None if given is None else b"7")


async def test_failure_of_the_application(caplog: pytest.LogCaptureFixture) -> None:
    class Socket(TopicSocket):
        async def connect(self) -> None:
            raise ValueError("a bug")

    async with served(routed(Socket.as_asgi())) as application:
        reply = await LongPollClient(application).open()
    assert (reply.http, reply.status) == (500, 500)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trio_channels.topics", logging.ERROR)
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_headers_of_the_handshake_are_passed_on() -> None:
    class Socket(TopicSocket):
        async def connect(self) -> None:
            await self.accept(headers=[(b"set-cookie", b"a=b")])

    async with served(routed(Socket.as_asgi())) as application:
        assert (await LongPollClient(application).open()).headers[b"set-cookie"] == b"a=b"


async def test_path_that_no_websocket_has() -> None:
    async with served(routed(socket_of(*ALL).as_asgi())) as application:
        async with HttpCommunicator(application, "GET", "/other/longpoll") as request:
            assert (await reply_of(request)).status == 403
        async with HttpCommunicator(application, "GET", "/socket/else") as request:
            with pytest.raises(ConfigurationError, match="ends with '/longpoll'; got '/socket/else'"):
                await request.get_response()


async def test_other_scopes_are_refused() -> None:
    async with WebsocketCommunicator(LongPolling(routed(socket_of(*ALL).as_asgi())), "/") as client:
        with pytest.raises(ConfigurationError, match="LongPolling serves 'http' scopes; got 'websocket'"):
            await client.connect()


async def test_server_without_a_lifespan() -> None:
    with pytest.raises(ConfigurationError, match="long-polling needs the application's lifespan"):
        await LongPollClient(site(routed(socket_of(*ALL).as_asgi()))).open()


async def test_site_without_a_channel_layer() -> None:
    with override_settings(CHANNEL_LAYERS={}):
        async with served(routed(TopicSocket.as_asgi(topics=ALL))) as application:
            client = LongPollClient(application)
            await client.open()
            await client.post(JOIN)
            assert await client.receive() == JOINED


def test_application_names_what_it_serves() -> None:
    assert repr(LongPolling(print)) == f"<LongPolling before {print!r}>"
