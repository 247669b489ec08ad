import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.request import urlopen

import pytest
from chat.models import Message
from chat.topics import QUIZ_MASTER, QUIZ_SECONDS
from django.contrib.auth.models import User
from mysite.asgi import application
from trio.testing import MockClock
from trio_channels.layers.base import ChannelLayer
from trio_channels.testing import LiveServer, TopicCommunicator, TopicReply

ORIGIN = [(b"origin", b"http://localhost")]
LOBBY = "room:lobby"


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada")


@asynccontextmanager
async def page(user: User | None, *topics: str) -> AsyncIterator[TopicCommunicator]:
    """An open page that has joined some topics."""
    client = TopicCommunicator(application, headers=ORIGIN)
    if user is not None:
        await client.login(user)
    async with client:
        await client.connect()
        for topic in topics:
            assert (await client.join(topic)).status == "ok"
        yield client


async def say(client: TopicCommunicator, text: str, push_id: str | None = None) -> TopicReply:
    return await client.push(LOBBY, "say", {"text": text, "push_id": push_id or secrets.token_hex(16)})


async def next_message(client: TopicCommunicator) -> dict[str, Any]:
    message: dict[str, Any] = (await client.receive_event(LOBBY, "message")).payload
    return message


async def test_message_is_stored_and_reaches_everybody(ada: User, channel_layer: ChannelLayer) -> None:
    async with page(ada, LOBBY) as one, page(None, LOBBY) as other:
        assert (await say(one, "hello")).status == "ok"
        message = await next_message(other)
        assert (message["author"], message["text"]) == ("ada", "hello")
        assert (await other.push(LOBBY, "latest")).response == {"messages": [message]}


async def test_message_that_is_sent_twice_is_stored_once(ada: User, channel_layer: ChannelLayer) -> None:
    async with page(ada, LOBBY) as client:
        push_id = secrets.token_hex(16)
        for _ in range(2):
            await say(client, "hello", push_id)
        assert await next_message(client) == await next_message(client)
        assert await Message.objects.acount() == 1


async def test_visitor_may_not_write(trio_db: None, channel_layer: ChannelLayer) -> None:
    async with page(None, LOBBY) as client:
        assert await say(client, "hello") == TopicReply("error", {"message": "you may not write in lobby"})


async def test_news_are_written_by_staff(ada: User, channel_layer: ChannelLayer) -> None:
    async with page(ada) as client:
        assert (await client.join("room:news")).response["may_write"] is False
    ada.is_staff = True
    await ada.asave()
    async with page(ada) as client:
        assert (await client.join("room:news")).response["may_write"] is True


async def test_other_rooms_are_refused(trio_db: None, channel_layer: ChannelLayer) -> None:
    async with page(None) as client:
        assert await client.join("room:cellar") == TopicReply("error", {"reason": "there is no such room"})


async def test_page_that_comes_back_gets_what_it_missed(ada: User, channel_layer: ChannelLayer) -> None:
    async with page(ada, LOBBY) as writer:
        await say(writer, "first")
        position = (await writer.receive_event(LOBBY, "message")).position
        await say(writer, "second")
    async with page(None) as reader:
        assert (await reader.join(LOBBY, {"since": position})).response["recovered"] is True
        assert (await next_message(reader))["text"] == "second"


async def test_everybody_sees_who_is_where(ada: User, channel_layer: ChannelLayer) -> None:
    async with page(None) as visitor:
        await visitor.join("people", {"room": "lobby"})
        async with page(ada) as client:
            await client.join("people", {"room": "lobby"})
            await client.push("people", "look_at", {"room": "kitchen"})
            rooms = []
            while "kitchen" not in rooms:
                diff = (await visitor.receive_event("people", "presence_diff")).payload
                rooms = [meta["room"] for meta in diff["joins"].get("ada", {"metas": []})["metas"]]


async def test_quiz_ends_with_the_right_answer(ada: User, channel_layer: ChannelLayer) -> None:
    async with page(ada, LOBBY) as client:
        await say(client, "/quiz")
        await next_message(client)
        question = await next_message(client)
        first, second, _ = map(int, re.findall(r"\d+", question["text"]))
        await say(client, str(first * second))
        await next_message(client)
        assert (await next_message(client))["text"] == "ada is right!"


async def test_quiz_ends_in_time(ada: User, channel_layer: ChannelLayer, mock_clock: MockClock) -> None:
    async with page(ada, LOBBY) as client:
        await say(client, "/quiz")
        await next_message(client)
        assert (await next_message(client))["author"] == QUIZ_MASTER
        mock_clock.jump(QUIZ_SECONDS)
        assert (await next_message(client))["text"].startswith("Time is up.")


async def test_quiz_ends_with_its_page(ada: User, channel_layer: ChannelLayer) -> None:
    async with page(ada, LOBBY) as client:
        await say(client, "/quiz")
        await next_message(client)
        await next_message(client)
        assert channel_layer.statistics().memberships == 2  # the page, and the quiz, which listens to answers
    assert channel_layer.statistics().memberships == 0


def test_page_has_its_style(trio_live_server: LiveServer) -> None:
    with urlopen(trio_live_server + "/") as response:
        html = response.read().decode()
    [style] = re.findall(r'href="(/static/.*?\.css)"', html)
    with urlopen(trio_live_server + style) as response:
        assert "color-scheme" in response.read().decode()
