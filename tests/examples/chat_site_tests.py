"""Run by Django's test runner, in the chat's own project: its topics and its pages, without a browser."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import trio
from chat.models import Message, Reading
from django.test import Client, TestCase, TransactionTestCase, override_settings
from mysite.asgi import application

from trio_channels.layers import get_channel_layer
from trio_channels.testing import TopicCommunicator

ORIGIN = (b"origin", b"http://localhost")


def in_trio(test: Callable[[Any], Awaitable[None]]) -> Callable[[Any], None]:
    @functools.wraps(test)
    def run(self: Any) -> None:
        trio.run(test, self)

    return run


def page(visitor: Client | None = None) -> TopicCommunicator:
    """A page of a visitor, or of somebody without a session."""
    cookies = "" if visitor is None else "; ".join(f"{key}={morsel.value}" for key, morsel in visitor.cookies.items())
    return TopicCommunicator(application, headers=[ORIGIN, (b"cookie", cookies.encode())])


def visitor() -> Client:
    client = Client()
    client.get("/")
    return client


def message(text: Any, push_id: Any = None) -> dict[str, Any]:
    return {"text": text, "push_id": push_id or uuid4().hex}


class TopicTests(TransactionTestCase):
    @in_trio
    async def test_bad_messages_are_refused(self) -> None:
        async with page() as ada:
            await ada.connect()
            await ada.join("room:garden")
            for text in "", " \n\x1f ", "x" * 2001, "a\0b", 1, None:
                reply = await ada.push("room:garden", "message.new", message(text))
                assert reply.status == "error", text
                assert reply.response["message"], text
            for push_id in "x", "A" * 32, "a" * 31, "a" * 33, 1:
                reply = await ada.push("room:garden", "message.new", message("hello", push_id))
                assert reply.response["at"] == "$.push_id", push_id
            for number in -1, 2**63, "1":
                assert (await ada.push("room:garden", "read", {"id": number})).status == "error", number
            assert (await ada.push("room:garden", "message.new", message("x" * 2000))).status == "ok"
            history = await ada.push("room:garden", "history")
            assert [each["text"] for each in history.response["messages"]] == ["x" * 2000]

    @in_trio
    async def test_message_with_the_same_id_is_stored_once_in_a_room(self) -> None:
        async with page() as ada:
            await ada.connect()
            replies = []
            for room in "garden", "garden", "kitchen":
                await ada.join(f"room:{room}")
                replies.append((await ada.push(f"room:{room}", "message.new", message("hello", "a" * 32))).response)
            assert replies[0] == replies[1] != replies[2]
            for room in "garden", "kitchen":
                history = await ada.push(f"room:{room}", "history")
                assert len(history.response["messages"]) == 1

    @in_trio
    async def test_rooms_that_cannot_be_are_no_topics(self) -> None:
        async with page() as ada:
            await ada.connect()
            for name in "room:", "room:a b", "room:a/b", f"room:{'a' * 51}", "rooms:", "Rooms":
                assert (await ada.join(name)).response == {"reason": "unmatched topic"}, name

    @in_trio
    async def test_page_resumes_by_position(self) -> None:
        async with page() as ada, page() as tom:
            await ada.connect()
            await tom.connect()
            first = await ada.join("room:orchard")
            assert not first.response["recovered"]  # the page has to read the database
            await tom.join("room:orchard")
            await ada.leave("room:orchard")
            await tom.push("room:orchard", "typing", {"typing": True})  # is no part of the history
            await tom.push("room:orchard", "message.new", message("meanwhile"))
            again = await ada.join("room:orchard", {"since": first.response["position"]})
            assert again.response["recovered"]
            missed = await ada.receive_event("room:orchard", "message")
            assert missed.payload["text"] == "meanwhile"
            history = await get_channel_layer().history("topic.room.orchard")
            assert [each["event"] for each in history.messages] == ["message"]

    @in_trio
    async def test_unread_messages_are_those_of_others_behind_the_mark(self) -> None:
        client = await trio.to_thread.run_sync(visitor)
        async with page(client) as ada, page() as tom:
            await ada.connect()
            await tom.connect()
            await ada.join("room:garden")
            await tom.join("room:garden")
            numbers = []
            for who, text in (tom, "one"), (ada, "two"), (tom, "three"), (tom, "four"):
                numbers.append((await who.push("room:garden", "message.new", message(text))).response["id"])
            for mark, unread in (0, 3), (numbers[0], 2), (numbers[2], 1), (numbers[1], 1), (numbers[3], 0):
                await ada.push("room:garden", "read", {"id": mark})
                (room,) = (await ada.join("rooms")).response["rooms"]
                assert (room["name"], room["last"], room["unread"]) == ("garden", numbers[3], unread), mark
            (room,) = (await tom.join("rooms")).response["rooms"]
            assert room["unread"] is None  # he has never read the room

    @in_trio
    async def test_rooms_tell_who_is_where_and_what_happens(self) -> None:
        async with page() as front, page() as ada:
            await front.connect()
            await front.join("rooms")
            assert (await front.receive_event("rooms", "presence_state")).payload == {}
            await ada.connect()
            me = (await ada.join("room:garden")).response["you"]
            (meta,) = (await front.receive_event("rooms", "presence_diff")).payload["joins"]["garden"]["metas"]
            assert {key: meta[key] for key in me} == me
            number = (await ada.push("room:garden", "message.new", message("hello"))).response["id"]
            news = (await front.receive_event("rooms", "activity")).payload
            assert (news["room"], news["id"], news["author"]) == ("garden", number, me["id"])
            await ada.leave("room:garden")
            (meta,) = (await front.receive_event("rooms", "presence_diff")).payload["leaves"]["garden"]["metas"]
            assert {key: meta[key] for key in me} == me


class MarkTests(TestCase):
    def test_a_mark_never_goes_back(self) -> None:
        for number in 3, 7, 5:
            Reading.objects.mark("ada", "garden", number)
        assert Reading.objects.get().read == 7

    def test_latest_rooms_are_twelve(self) -> None:
        for number in range(14):
            Message.objects.create(room=f"room-{number}", author="ada", author_name="Ada", text="hello")
        names = [room["name"] for room in Message.objects.latest_rooms()]
        assert names == [f"room-{number}" for number in range(13, 1, -1)]


class PageTests(TestCase):
    def test_every_page_has_a_policy_that_allows_nothing_inline(self) -> None:
        for path in "/", "/chat/garden/", "/code/", "/sign-in/", "/sign-up/", "/chat/no room/":
            policy = self.client.get(path).headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'self';"), path
            assert "unsafe" not in policy, path

    def test_code_is_shown_and_linked(self) -> None:
        self.assertContains(self.client.get("/chat/garden/"), '<a href="/code/">Code</a>', html=True)
        page = self.client.get("/code/")
        for name in "topics.py", "models.py", "static/chat/room.js", "static/chat/outbox.js":
            self.assertContains(page, f"<summary>{name}</summary>", html=True)
        self.assertContains(page, "class Room(ChatTopic):")
        self.assertContains(page, "&lt;name&gt;")  # of the docstring

    @override_settings(DEBUG=False)
    def test_restart_is_for_development_only(self) -> None:
        self.assertNotContains(self.client.get("/chat/garden/"), "/restart/")
        assert self.client.post("/restart/").status_code == 404

    @override_settings(DEBUG=True)
    def test_restart_needs_a_post_of_the_site(self) -> None:
        self.assertContains(self.client.get("/chat/garden/"), 'action="/restart/"')
        assert self.client.get("/restart/").status_code == 405
        assert Client(enforce_csrf_checks=True).post("/restart/").status_code == 403
