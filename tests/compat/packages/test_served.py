"""Packages for Channels, served by ``trio-channels serve`` with ``CHANNELS_ALIAS``; real clients over real sockets."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio_websocket import WebSocketConnection

from ...packages.serving import Site, site
from ...process import SAFETY

SETTINGS: dict[str, Any] = {
    "TRIO_CHANNELS": {"CHANNELS_ALIAS": True},
    "CHANNEL_LAYERS": {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
}
GRAPHQL = ("graphql-transport-ws",)


@asynccontextmanager
async def serve(name: str, apps: Sequence[str] = ()) -> AsyncIterator[Site]:
    """Serve a site of this folder."""
    with trio.fail_after(SAFETY):
        async with site(name, where="tests.compat.packages.sites", apps=apps, **SETTINGS) as served:
            yield served


async def ask(client: WebSocketConnection, **message: Any) -> Any:
    """Send a message, and wait for one."""
    await client.send_message(json.dumps(message))
    return json.loads(await client.get_message())


async def subscribe(client: WebSocketConnection, key: str, query: str) -> None:
    """Start an operation of GraphQL over WebSocket."""
    await client.send_message(json.dumps({"id": key, "type": "subscribe", "payload": {"query": query}}))


def test_channels_itself_is_not_installed() -> None:
    assert importlib.util.find_spec("channels") is None


async def test_subscription_of_django_channels_graphql_ws() -> None:
    async with serve("graphql_ws") as served:
        async with (
            served.websocket("/graphql/", subprotocols=GRAPHQL) as ada,
            served.websocket("/graphql/", subprotocols=GRAPHQL) as grace,
        ):
            for client in (ada, grace):
                assert (await ask(client, type="connection_init", payload={}))["type"] == "connection_ack"
            await subscribe(ada, "1", 'subscription { newMessage(room: "tea") { text } }')
            # Its subscriptions begin without a word to the client; the second answer comes after that.
            await subscribe(ada, "2", "query { value }")
            assert json.loads(await ada.get_message())["id"] == "2"
            assert json.loads(await ada.get_message()) == {"id": "2", "type": "complete"}
            await subscribe(grace, "3", 'mutation { say(room: "tea", text: "hello") { ok } }')
            news = json.loads(await ada.get_message())
            assert news["payload"]["data"] == {"newMessage": {"text": "hello"}}
        assert "runs on asyncio" in served.log


async def test_subscriptions_of_strawberry() -> None:
    async with serve("strawberry_ws") as served, served.websocket("/graphql/", subprotocols=GRAPHQL) as client:
        assert (await ask(client, type="connection_init"))["type"] == "connection_ack"
        await subscribe(client, "1", "subscription { count(to: 3) }")
        got = [json.loads(await client.get_message()) for _ in range(4)]
        assert [each["payload"]["data"]["count"] for each in got[:3]] == [0, 1, 2]
        assert got[3] == {"id": "1", "type": "complete"}
        await subscribe(client, "2", 'subscription { news(room: "tea") }')
        assert json.loads(await client.get_message())["payload"]["data"] == {"news": "welcome to tea"}
        await subscribe(client, "3", "query { users }")
        assert json.loads(await client.get_message())["payload"]["data"] == {"users": 2}


async def test_streams_of_channelsmultiplexer() -> None:
    async with serve("multiplexer") as served:
        async with served.websocket("/many/") as client:
            answer = await ask(client, stream="echo", payload={"text": "one"})
            assert answer == {"stream": "echo", "payload": {"echo": {"text": "one"}, "library": "asyncio"}}
            answer = await ask(client, stream="group", payload={"text": "two"})
            assert answer == {"stream": "group", "payload": {"said": "two"}}
        async with served.websocket("/native/") as client:
            answer = await ask(client, text="three")
            assert answer == {"echo": {"text": "three"}, "library": "trio", "base": "trio_channels.generic.websocket"}
        assert "Native runs on asyncio" not in served.log


async def test_changes_of_djangochannelsrestframework() -> None:
    async with serve("rest", apps=["rest_framework"]) as served, served.websocket("/users/") as client:
        listed = await ask(client, action="list", request_id=1)
        assert [user["username"] for user in listed["data"]] == ["ada", "grace"]
        subscribed = await ask(client, action="subscribe_instance", pk=1, request_id=2)
        assert subscribed["response_status"] == 201
        created = await ask(client, action="create", data={"username": "joan", "email": ""}, request_id=3)
        assert created["data"] == {"username": "joan", "email": ""}
