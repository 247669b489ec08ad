"""A session is opened under the rules of WebSockets: its origin, its user, its login."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import override_settings
from trio.testing import wait_all_tasks_blocked

from trio_channels.auth import AuthMiddlewareStack
from trio_channels.closing import close_user
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.security.websocket import AllowedHostsOriginValidator, OriginValidator
from trio_channels.testing import ApplicationCommunicator
from trio_channels.topics import Topic, TopicSocket, event
from trio_channels.topics.long_polling.scopes import websocket_scope

from .client import LongPollClient, open_sessions, reply_of, routed, served

JOIN = ["1", "1", "room:a", "phx_join", {}]
OURS, THEIRS = (b"origin", b"https://example.com"), (b"origin", b"https://evil.example")


class Room(Topic):
    pattern = "room:<slug:name>"

    async def join(self, params: Any) -> Any:
        return {"user": str(self.scope.get("user")), "token": self.socket.auth_token}

    @event("echo")
    async def echo(self, payload: Any) -> Any:
        return payload


class Socket(TopicSocket):
    topics = [Room]
    channel_layer = InMemoryChannelLayer()


def header(name: str, value: str) -> tuple[bytes, bytes]:
    return name.encode(), value.encode()


HOST = header("host", "example.com")
REFERER, FOREIGN_REFERER = (
    header("referer", "https://example.com/chat/?a=b"),
    header("referer", "https://evil.example/"),
)
SAME, CROSS = header("sec-fetch-site", "same-origin"), header("sec-fetch-site", "cross-site")

#: A browser's headers about the page, and whether the page may open a session.
TABLE = {
    "Origin of ours": ([OURS], True),
    "Origin of another site": ([THEIRS], False),
    "Origin null": ([header("origin", "null")], False),
    "two Origins": ([OURS, THEIRS], False),
    "two Origins with our Referer": ([HOST, OURS, THEIRS, REFERER], False),
    "nothing": ([], False),
    "nothing but our host": ([HOST], False),
    "Referer of ours": ([HOST, REFERER], True),
    "Referer of another site": ([HOST, FOREIGN_REFERER], False),
    "Referer without a site": ([HOST, header("referer", "/chat/")], False),
    "Referer with a user": ([HOST, header("referer", "https://example.com@evil.example/")], False),
    "Referer that is none": ([HOST, header("referer", "https://[")], False),
    "Referer that is none, same origin": ([HOST, SAME, (b"referer", b"https://\xbd.example/")], False),
    "same origin": ([HOST, SAME], True),
    "same origin with a Referer": ([HOST, SAME, REFERER], True),
    "same origin at another host": ([header("host", "evil.example"), SAME], False),
    "same origin without a host": ([SAME], False),
    "another site": ([HOST, CROSS], False),
    "another site with our Referer": ([HOST, CROSS, REFERER], False),
    "same site": ([HOST, header("sec-fetch-site", "same-site")], False),
    "typed by the user": ([HOST, header("sec-fetch-site", "none")], False),
    "Origin of another site with our Referer": ([HOST, THEIRS, REFERER], False),
}


@pytest.mark.parametrize(("headers", "allowed"), TABLE.values(), ids=TABLE)
async def test_origin_of_a_session(headers: list[tuple[bytes, bytes]], allowed: bool) -> None:
    guarded = OriginValidator(routed(Socket.as_asgi()), ["example.com"])
    async with served(guarded) as application:
        reply = await LongPollClient(application, headers=headers).open()
        assert reply.http == (200 if allowed else 403)
        assert len(open_sessions()) == (1 if allowed else 0)


async def test_page_of_another_origin_may_read_the_answers() -> None:
    async with served(OriginValidator(routed(Socket.as_asgi()), ["example.com"])) as application:
        client = LongPollClient(application, headers=[OURS])
        for reply in (await client.open(), await client.post(JOIN), await client.poll()):
            assert (reply.http, reply.headers[b"access-control-allow-origin"]) == (200, OURS[1])
            assert reply.headers[b"vary"] == b"origin"
            assert b"access-control-allow-credentials" not in reply.headers
        denied = await LongPollClient(application, headers=[THEIRS]).open()
        assert b"access-control-allow-origin" not in denied.headers
        asked = await LongPollClient(application, headers=[THEIRS]).ask("OPTIONS")
        assert asked.http == 200 + 4
        assert (
            asked.headers[b"access-control-allow-headers"]
            == b"content-type, x-phoenix-authtoken, last-event-id, x-message-number"
        )
        assert len(open_sessions()) == 1


async def test_token_is_of_no_use_to_another_origin() -> None:
    async with served(OriginValidator(routed(Socket.as_asgi()), ["*"])) as application:
        client = LongPollClient(application, headers=[OURS])
        await client.open()
        thief = LongPollClient(application, headers=[THEIRS])
        thief.token = client.token
        assert (await thief.post(JOIN)).status == 410
        assert (await thief.poll()).status == 410
        assert (await client.post(JOIN)).status == 200


async def test_post_of_the_same_origin_names_it() -> None:
    async with served(AllowedHostsOriginValidator(routed(Socket.as_asgi()))) as application:
        headers = [header("host", "localhost"), SAME]
        client = LongPollClient(application, headers=headers)
        await client.open()
        client.headers = [*headers, header("origin", "https://localhost")]  # a proxy speaks TLS
        assert (await client.post(JOIN)).status == 200


async def test_token_of_the_client() -> None:
    async with served(routed(Socket.as_asgi())) as application:
        client = LongPollClient(application, headers=[(b"x-phoenix-authtoken", "sécret?".encode())])
        await client.open()
        await client.post(JOIN)
        assert (await client.receive())[4]["response"]["token"] == "sécret?"


@pytest.mark.django_db(transaction=True)
async def test_session_has_the_user_of_its_cookies() -> None:
    user = await get_user_model().objects.acreate(username="ada")
    application: Any = AllowedHostsOriginValidator(AuthMiddlewareStack(routed(Socket.as_asgi())))
    headers = [header("host", "localhost"), header("origin", "http://localhost")]
    async with served(application) as site:
        client = LongPollClient(site, headers=headers)
        async with client.request("GET") as opening:
            await opening.login(user)
            client.token = (await reply_of(opening)).token
        await client.post(JOIN)
        assert (await client.receive())[4]["response"]["user"] == "ada"
        await close_user(user)
        await wait_all_tasks_blocked()
        assert (await client.poll()).status == 410


@pytest.mark.django_db(transaction=True)
async def test_session_ends_with_the_login() -> None:
    user = await get_user_model().objects.acreate(username="ada")
    with override_settings(TRIO_CHANNELS={"SESSION_RECHECK": 0.01}):
        async with served(AuthMiddlewareStack(routed(Socket.as_asgi()))) as site:
            client = LongPollClient(site)
            async with client.request("GET") as opening:
                await opening.login(user)
                client.token = (await reply_of(opening)).token
            await user.adelete()
            while (await client.poll()).status != 410:
                pass
            while len(open_sessions()):
                await wait_all_tasks_blocked()


# -- the scope --------------------------------------------------------------------------------------------------------


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An application for a communicator that is never run."""


def test_scope_of_a_session() -> None:
    request = {
        **ApplicationCommunicator(nothing, {"type": "http"}).scope,
        "scheme": "https",
        "http_version": "2",
        "root_path": "/mounted",
        "path": "/mounted/a b/longpoll",
        "raw_path": b"/mounted/a%20b/longpoll",
        "query_string": b"vsn=2.0.0",
        "headers": [(b"cookie", b"a=b"), (b"content-type", b"x"), (b"X-Phoenix-AuthToken", b"t"), OURS],
        "client": ["192.0.2.1", 1],
        "server": ["192.0.2.2", 443],
        "path_remaining": "longpoll",
        "url_route": {"args": (), "kwargs": {}},
        "extensions": {
            "http.response.push": {},
            "trio_channels.direct": object(),
            "trio_channels.connection": {"id": 7},
        },
        "state": {"shared": 1},
    }
    assert websocket_scope(request) == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "2",
        "scheme": "wss",
        "path": "/mounted/a b/websocket",
        "raw_path": b"/mounted/a%20b/websocket",
        "root_path": "/mounted",
        "query_string": b"vsn=2.0.0",
        "headers": [(b"cookie", b"a=b"), OURS],
        "subprotocols": ["phoenix", "base64url.bearer.phx.dA"],
        "client": ["192.0.2.1", 1],
        "server": ["192.0.2.2", 443],
        "extensions": {"trio_channels.connection": {"id": 7}, "websocket.http.response": {}},
        "state": {"shared": 1},
    }


def test_scope_of_a_server_that_tells_little() -> None:
    made = websocket_scope({"type": "http", "path": "/longpoll"})
    assert (made["path"], made["raw_path"], made["scheme"], made["subprotocols"]) == (
        "/websocket",
        b"/websocket",
        "ws",
        [],
    )
    assert "state" not in made
