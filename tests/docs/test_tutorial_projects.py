"""The project of each part of the tutorial, made as its pages say, served, and used over real sockets."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import trio
from trio_websocket import WebSocketConnection

from trio_channels.client import ClientSocket, ClientTopic, Rejoined, connect
from trio_channels.exceptions import JoinFailed, PushFailed

from ..integration.server.conftest import Server
from ..ports import free_port
from ..process import ROOT, SAFETY, Program, program
from ..redis_server import RedisServer, needs_redis
from .test_tutorial import NO_SETTINGS, tutorial

pytestmark = pytest.mark.slow

PASSWORD = "correct horse battery"
QUESTION = re.compile(r"What is (\d+) times (\d+)\?")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The project at the end of each part."""
    place = tmp_path_factory.mktemp("tutorial")
    (place / "now").mkdir()
    for part in tutorial.PARTS:
        tutorial.follow(part, place / "now")
        shutil.copytree(place / "now", place / part)
    return {part: place / part for part in tutorial.PARTS}


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


@asynccontextmanager
async def served(project: Path, port: int = 0, **environment: str) -> AsyncIterator[tuple[Program, Server]]:
    serve = ("-m", "trio_channels", "serve", "mysite.asgi:application", "--bind", f"127.0.0.1:{port}")
    async with program(*serve, cwd=project, **NO_SETTINGS, **environment) as process:
        yield process, Server(await process.port())
        assert "Traceback" not in process.text, process.text


async def stop(process: Program) -> None:
    process.process.send_signal(signal.SIGINT)
    assert await process.ends() == 0, process.text


async def session_of(server: Server, name: str) -> str:
    """Sign up; returns the key of the session."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=SAFETY) as browser:
        await browser.get("/sign-up/")
        form = {"username": name, "password1": PASSWORD, "password2": PASSWORD}
        answer = await browser.post("/sign-up/", data=form | {"csrfmiddlewaretoken": browser.cookies["csrftoken"]})
        assert answer.status_code == 302, answer.text
        return browser.cookies["sessionid"]


def headers_of(server: Server, session: str | None) -> list[tuple[bytes, bytes]]:
    headers = [(b"origin", f"http://127.0.0.1:{server.port}".encode())]
    return headers if session is None else [*headers, (b"cookie", f"sessionid={session}".encode())]


class Page:
    """A page of a room, as the consumer knows it."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self.socket = socket
        self.position: str | None = None

    async def hear(self) -> Any:
        """The next message of the server."""
        with trio.fail_after(SAFETY):
            content = json.loads(await self.socket.get_message())
        self.position = content.get("position", self.position)
        return content

    async def hear_texts(self) -> list[str]:
        return [message["text"] for message in (await self.hear())["messages"]]

    async def say(self, text: object) -> None:
        await self.socket.send_message(json.dumps({"text": text}))


@asynccontextmanager
async def page(
    server: Server, session: str | None = None, room: str = "lobby", since: str | None = None
) -> AsyncIterator[Page]:
    query = "" if since is None else f"?since={quote(since)}"
    with trio.fail_after(SAFETY):
        async with server.websocket(f"/ws/chat/{room}/{query}", extra_headers=headers_of(server, session)) as socket:
            yield Page(socket)


async def test_users_write_and_visitors_read(parts: dict[str, Path]) -> None:
    async with served(parts["users"]) as (process, server):
        ada = await session_of(server, "ada")
        async with page(server, ada) as writer, page(server) as reader:
            assert await writer.hear_texts() == await reader.hear_texts() == []
            await writer.say("hello")
            [message] = (await reader.hear())["messages"]
            assert (message["author"], message["text"]) == ("ada", "hello")
            await reader.say("hello")
            assert await reader.hear() == {"error": "you may not write in lobby"}
        async with page(server, ada, "news") as news:
            assert await news.hear_texts() == []
            await news.say("hello")
            assert await news.hear() == {"error": "you may not write in news"}
        await stop(process)
    async with served(parts["users"]) as (_, server), page(server) as reader:
        assert await reader.hear_texts() == ["hello"]


async def test_texts_that_no_database_takes_are_refused(parts: dict[str, Path]) -> None:
    for part in "users", "tasks":
        async with served(parts[part]) as (_, server), page(server, await session_of(server, "mallory")) as writer:
            await writer.hear_texts()
            for text in "\ud800", "a\udfffb", "a\0b", "", "a" * 1001, None, ["a"]:
                await writer.say(text)
                assert await writer.hear() == {"error": "expected a text of 1 to 1000 characters"}
            await writer.say("a" * 999 + "\U0001f600")
            assert len(await writer.hear_texts()) == 1


async def test_runserver_serves_the_style_of_the_pages(parts: dict[str, Path]) -> None:
    port = free_port()
    command = ("manage.py", "runserver", "--noreload", f"127.0.0.1:{port}")
    async with program(*command, cwd=parts["users"], **NO_SETTINGS) as process:
        await process.said("Quit the server")
        html = (await Server(port).request("GET", "/chat/lobby/")).body.decode()
        for name in re.findall(r'"(/static/[^"]+)"', html):
            assert (await Server(port).request("GET", name)).status == 200
        assert "Log in to write." in html


async def test_page_that_comes_back_gets_what_it_missed(parts: dict[str, Path]) -> None:
    port = free_port()
    async with served(parts["outages"], port) as (process, server):
        ada = await session_of(server, "ada")
        async with page(server, ada) as writer:
            await writer.hear()
            async with page(server) as reader:
                await reader.hear()
                await writer.say("one")
                assert await reader.hear_texts() == ["one"]
            for text in "two", "three":
                await writer.say(text)
            async with page(server, since=reader.position) as again:
                assert await again.hear_texts() == ["two"]
                assert await again.hear_texts() == ["three"]
            async with page(server, since="x" * 10) as strange:
                assert await strange.hear_texts() == ["one", "two", "three"]
        await stop(process)
    async with served(parts["outages"], port) as (_, server), page(server, since=again.position) as later:
        assert await later.hear_texts() == ["one", "two", "three"]  # from the database


@needs_redis
async def test_two_servers_are_one_chat(parts: dict[str, Path], redis: RedisServer) -> None:
    port = free_port()
    async with served(parts["processes"], REDIS_URL=redis.url) as (_, first):
        ada = await session_of(first, "ada")
        assert (await first.request("GET", "/static/chat/chat.css")).status == 200
        async with page(first, ada) as writer:
            await writer.hear()
            async with served(parts["processes"], port, REDIS_URL=redis.url) as (process, second):
                async with page(second) as reader:
                    await reader.hear()
                    await writer.say("one")
                    assert await reader.hear_texts() == ["one"]
                await stop(process)
            await writer.say("two")
            async with (
                served(parts["processes"], port, REDIS_URL=redis.url) as (_, second),
                page(second, since=reader.position) as again,
            ):
                assert await again.hear_texts() == ["two"]  # by its position: otherwise "one" would come, too


async def test_quiz_is_won_by_another_page(parts: dict[str, Path]) -> None:
    async with served(parts["tasks"]) as (_, server):
        ada, ben = await session_of(server, "ada"), await session_of(server, "ben")
        async with page(server, ada) as host, page(server, ben) as guest:
            for one in host, guest:
                await one.hear()
            await host.say("/quiz")
            assert await guest.hear_texts() == ["/quiz"]
            [question] = await guest.hear_texts()
            first, second = map(int, QUESTION.findall(question)[0])
            await guest.say("17")
            await guest.say(str(first * second))
            assert [await guest.hear_texts() for _ in range(3)] == [["17"], [str(first * second)], ["ben is right!"]]


@pytest.mark.parametrize(("part", "count"), [("tasks", 7), ("topics", 11)])
def test_tests_of_the_tutorial_pass(parts: dict[str, Path], part: str, count: int) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        cwd=parts[part],
        # Where Redis is set, but not there, as in the terminal of the part before.
        env=environment | {"PYTHONPATH": str(ROOT), "REDIS_URL": "redis://127.0.0.1:1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert f"{count} passed" in done.stdout, done.stdout


def with_topics(server: Server, session: str | None = None) -> AbstractAsyncContextManager[ClientSocket]:
    address = f"ws://127.0.0.1:{server.port}/socket"
    return connect(address, headers=headers_of(server, session), back_off=lambda attempt, code: 0.05)


async def next_event(topic: ClientTopic, event: str) -> Any:
    """The payload of the next event of that name."""
    with trio.fail_after(SAFETY):
        while (message := await anext(topic)).event != event:
            pass
    return message.payload


async def say(room: ClientTopic, text: str) -> None:
    await room.push("say", {"text": text, "push_id": secrets.token_hex(16)}, timeout=SAFETY)


async def test_topics_tell_who_is_where_and_what_is_said(parts: dict[str, Path]) -> None:
    async with served(parts["topics"]) as (_, server):
        for name in ("/", "/static/chat/chat.js", "/static/trio_channels/topics.js"):
            assert (await server.request("GET", name)).status == 200
        ada = await session_of(server, "ada")
        async with (
            with_topics(server, ada) as writer,
            with_topics(server) as reader,
            reader.join("people", {"room": "lobby"}) as people,
            reader.join("room:kitchen") as kitchen,
            writer.join("room:kitchen") as room,
        ):
            assert (room.response["may_write"], kitchen.response["may_write"]) == (True, False)
            with pytest.raises(PushFailed, match="invalid payload"):
                await say(room, "a\0b")
            await say(room, "hello")
            assert (await next_event(kitchen, "message"))["author"] == "ada"
            with pytest.raises(PushFailed, match="you may not write in kitchen"):
                await say(kitchen, "hello")
            async with writer.join("people", {"room": "kitchen"}):
                while "ada" not in people.presence:
                    await next_event(people, "presence_diff")
                assert people.presence["ada"][0]["room"] == "kitchen"
            with pytest.raises(JoinFailed, match="there is no such room"):
                async with reader.join("room:cellar"):
                    pass


async def run_server(
    project: Path, port: int, redis: RedisServer, *, task_status: trio.TaskStatus[tuple[Program, Server]]
) -> None:
    """As long as a task runs, so that clients may live longer than it."""
    async with served(project, port, REDIS_URL=redis.url) as running:
        task_status.started(running)
        await trio.sleep_forever()


@needs_redis
async def test_topics_miss_nothing_when_the_server_is_killed(parts: dict[str, Path], redis: RedisServer) -> None:
    there = parts["topics"], free_port(), redis
    async with trio.open_nursery() as nursery:
        process, server = await nursery.start(run_server, *there)
        eve = await session_of(server, "eve")
        async with with_topics(server, eve) as writer, writer.join("room:lobby") as room:
            await say(room, "one")
            assert (await next_event(room, "message"))["text"] == "one"
            process.process.kill()
            await process.ends()
            nursery.start_soon(say, room, "two")  # while the server is away
            await nursery.start(run_server, *there)
            with trio.fail_after(SAFETY):
                rejoined = await anext(room)
            assert isinstance(rejoined, Rejoined)
            assert rejoined.recovered
            assert (await next_event(room, "message"))["text"] == "two"
            latest = (await room.push("latest"))["messages"]
            assert [message["text"] for message in latest][-2:] == ["one", "two"]
        nursery.cancel_scope.cancel()
