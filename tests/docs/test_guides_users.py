"""The samples of the guide about users, permissions and tokens."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.test import RequestFactory

from trio_channels.auth import AuthMiddlewareStack
from trio_channels.db import database_sync_to_async
from trio_channels.layers.base import ChannelLayer
from trio_channels.testing import WebsocketCommunicator

SNIPPETS = Path(__file__).parents[2] / "docs" / "snippets"


def snippet(name: str) -> Iterator[Any]:
    sys.path.insert(0, str(SNIPPETS))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(SNIPPETS))
        sys.modules.pop(name, None)


@pytest.fixture
def members() -> Iterator[Any]:
    yield from snippet("members")


@pytest.fixture
def tokens() -> Iterator[Any]:
    pytest.importorskip("jwt", reason="PyJWT is not installed")
    yield from snippet("tokens")


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada")


async def test_visitor_is_denied(members: Any, trio_db: None, channel_layer: ChannelLayer) -> None:
    async with WebsocketCommunicator(AuthMiddlewareStack(members.Editors.as_asgi()), "/") as ws:
        assert (await ws.connect())[0] is False


@pytest.mark.parametrize("may_write", [False, True])
async def test_writing_needs_a_permission(
    members: Any, ada: User, channel_layer: ChannelLayer, may_write: bool
) -> None:
    if may_write:
        permission = await Permission.objects.aget(codename="change_user")
        await database_sync_to_async(ada.user_permissions.add)(permission)
    ws = WebsocketCommunicator(AuthMiddlewareStack(members.Editors.as_asgi()), "/")
    await ws.login(ada)
    async with ws:
        assert (await ws.connect())[0] is True
        assert await ws.receive_json_from() == {"you": "ada", "may_write": may_write}
        await ws.send_json_to({"text": "hello"})
        assert await ws.receive_json_from() == ({"text": "hello"} if may_write else {"error": "you may only read"})


@pytest.mark.parametrize("way", ["subprotocol", "query", "header"])
async def test_token_is_taken(tokens: Any, ada: User, way: str) -> None:
    token = tokens.token_for(ada)
    subprotocols = ["account", f"bearer.{token}"] if way == "subprotocol" else []
    headers = [(b"authorization", f"Bearer {token}".encode())] if way == "header" else []
    query = f"?token={token}" if way == "query" else ""
    ws = WebsocketCommunicator(tokens.application, f"/ws/account/{query}", headers, subprotocols=subprotocols)
    async with ws:
        assert await ws.connect() == (True, "account" if subprotocols else None)
        assert await ws.receive_from() == "hello, ada"


@pytest.mark.parametrize(("password", "status"), [("secret", 200), ("wrong", 401), (None, 401)])
def test_app_logs_in(tokens: Any, ada: User, rf: RequestFactory, password: str | None, status: int) -> None:
    ada.set_password("secret")
    ada.save()
    response = tokens.log_in(rf.post("/", {"username": "ada"} | ({} if password is None else {"password": password})))
    assert response.status_code == status
    assert (b"token" in response.content) is (status == 200)


async def test_pages_and_apps_have_addresses_of_their_own(ada: User, tokens: Any, channel_layer: ChannelLayer) -> None:
    for application in (module.application for module in snippet("tokens_asgi")):
        app = WebsocketCommunicator(application, f"/app/ws/editors/?token={tokens.token_for(ada)}")
        page = WebsocketCommunicator(application, "/ws/editors/", [(b"origin", b"http://testserver")])
        await page.login(ada)
        for client in (app, page):
            async with client:
                assert (await client.connect())[0] is True
        elsewhere = WebsocketCommunicator(application, f"/ws/editors/?token={tokens.token_for(ada)}")
        async with elsewhere:
            assert (await elsewhere.connect())[0] is False


def forged(jwt: Any, ada: User, **claims: Any) -> str:
    key = claims.pop("key", settings.SECRET_KEY)
    content = {"sub": str(ada.pk), "exp": int(time.time()) + 60} | claims
    return str(jwt.encode({name: value for name, value in content.items() if value is not None}, key, "HS256"))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"exp": None},
        {"sub": "0"},
        {"sub": "ada"},
        {"sub": "9" * 30},
        {"sub": None},
        {"key": "another key, as long as one has to be"},
    ],
)
async def test_bad_token_is_that_of_a_visitor(tokens: Any, ada: User, claims: dict[str, Any]) -> None:
    token = forged(tokens.jwt, ada, **claims)
    async with WebsocketCommunicator(tokens.application, f"/ws/account/?token={token}") as ws:
        assert (await ws.connect())[0] is False


@pytest.mark.parametrize("query", ["", "?token=", "?token=x.y.z", "?token=%FF", "?other=1"])
async def test_what_is_no_token_is_that_of_a_visitor(tokens: Any, trio_db: None, query: str) -> None:
    async with WebsocketCommunicator(tokens.application, f"/ws/account/{query}") as ws:
        assert (await ws.connect())[0] is False


async def test_user_who_is_not_active_is_a_visitor(tokens: Any, ada: User) -> None:
    token = tokens.token_for(ada)
    await User.objects.aupdate(is_active=False)
    async with WebsocketCommunicator(tokens.application, f"/ws/account/?token={token}") as ws:
        assert (await ws.connect())[0] is False


async def test_connection_ends_with_its_token(tokens: Any, ada: User) -> None:
    consumer = tokens.Account.as_asgi()
    async with WebsocketCommunicator(consumer, "/") as ws:
        ws.scope |= {"user": ada, "token": {"exp": time.time() + 0.01}}
        await ws.connect()
        assert await ws.receive_from() == "hello, ada"
        assert (await ws.receive_output())["code"] == 4401
