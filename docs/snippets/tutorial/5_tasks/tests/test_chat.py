import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.request import urlopen

import pytest
from chat.consumers import QUIZ_MASTER, QUIZ_SECONDS
from chat.models import Message
from django.contrib.auth.models import User
from mysite.asgi import application
from trio.testing import MockClock
from trio_channels.layers.base import ChannelLayer
from trio_channels.testing import LiveServer, WebsocketCommunicator

ORIGIN = [(b"origin", b"http://localhost")]


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada")


@asynccontextmanager
async def page(user: User | None, query: str = "") -> AsyncIterator[WebsocketCommunicator]:
    """An open page of the lobby."""
    ws = WebsocketCommunicator(application, f"/ws/chat/lobby/{query}", headers=ORIGIN)
    if user is not None:
        await ws.login(user)
    async with ws:
        assert (await ws.connect())[0] is True
        yield ws


async def next_message(ws: WebsocketCommunicator) -> dict[str, Any]:
    message: dict[str, Any]
    [message] = (await ws.receive_json_from())["messages"]
    return message


async def test_message_is_stored_and_reaches_everybody(ada: User, channel_layer: ChannelLayer) -> None:
    async with page(ada) as one, page(None) as other:
        for ws in one, other:
            assert await ws.receive_json_from() == {"messages": []}
        await one.send_json_to({"text": "hello"})
        message = await next_message(other)
        assert (message["author"], message["text"]) == ("ada", "hello")
        assert await Message.objects.filter(text="hello").acount() == 1


async def test_visitor_may_not_write(trio_db: None, channel_layer: ChannelLayer) -> None:
    async with page(None) as ws:
        await ws.receive_json_from()
        await ws.send_json_to({"text": "hello"})
        assert await ws.receive_json_from() == {"error": "you may not write in lobby"}


async def test_page_that_comes_back_gets_what_it_missed(ada: User, channel_layer: ChannelLayer) -> None:
    async with page(ada) as writer:
        await writer.receive_json_from()
        positions = []
        for text in "first", "second":
            await writer.send_json_to({"text": text})
            positions.append((await writer.receive_json_from())["position"])
    async with page(None, f"?since={positions[0]}") as reader:
        assert (await next_message(reader))["text"] == "second"


async def test_quiz_ends_with_the_right_answer(ada: User, channel_layer: ChannelLayer) -> None:
    async with page(ada) as ws:
        await ws.receive_json_from()
        await ws.send_json_to({"text": "/quiz"})
        assert (await next_message(ws))["text"] == "/quiz"
        question = await next_message(ws)
        first, second, _ = map(int, re.findall(r"\d+", question["text"]))
        await ws.send_json_to({"text": str(first * second)})
        await next_message(ws)
        assert (await next_message(ws))["text"] == "ada is right!"


async def test_quiz_ends_in_time(ada: User, channel_layer: ChannelLayer, mock_clock: MockClock) -> None:
    async with page(ada) as ws:
        await ws.receive_json_from()
        await ws.send_json_to({"text": "/quiz"})
        await next_message(ws)
        assert (await next_message(ws))["author"] == QUIZ_MASTER
        mock_clock.jump(QUIZ_SECONDS)
        assert (await next_message(ws))["text"].startswith("Time is up.")


async def test_quiz_ends_with_its_page(ada: User, channel_layer: ChannelLayer) -> None:
    async with page(ada) as ws:
        await ws.receive_json_from()
        await ws.send_json_to({"text": "/quiz"})
        await next_message(ws)
        await next_message(ws)
        assert channel_layer.statistics().memberships == 2  # the page, and the quiz, which listens too
    assert channel_layer.statistics().memberships == 0


def test_page_has_its_style(trio_live_server: LiveServer) -> None:
    with urlopen(trio_live_server + "/") as response:
        html = response.read().decode()
    [style] = re.findall(r'href="(/static/.*?\.css)"', html)
    with urlopen(trio_live_server + style) as response:
        assert "color-scheme" in response.read().decode()
