"""``topics.js`` in Chromium, served by ``staticfiles``, against a server that is killed while both talk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..redis_server import RedisServer, needs_redis
from .conftest import CHROMIUM, PATIENCE, ChatServer
from .topics_server import TOPIC, prepare, rows

try:
    from playwright import sync_api
except ImportError:
    sync_api = None  # type: ignore[assignment]
if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.browser,
    needs_redis,
    pytest.mark.skipif(sync_api is None, reason="needs the playwright package: pip install playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH: apt-get install chromium"),
]

SCRIPT = Path(__file__).with_name("topics_server.py")
KILLS = 10

#: A socket whose delays a test chooses, and its states. `outcome` keeps failures out of the page's console.
CONNECT = """async ({ delay = 50, ...options }) => {
  const { Socket, Presence } = await import("/static/trio_channels/topics.js");
  window.Presence = Presence;
  window.socket = new Socket("/socket", { backOff: () => delay, ...options });
  window.states = [];
  socket.onState((state, ended) => states.push(ended ? `${state} ${ended.code}` : state));
  window.outcome = (promise) => promise.then((value) => ["ok", value], ({ code, response }) => [code, response]);
  socket.connect();
}"""


class Server(ChatServer):
    """``topics_server.py``."""

    script = SCRIPT

    def __init__(self, database: Path, redis: RedisServer) -> None:
        super().__init__(database)
        self.database = database
        self._environment |= {"TOPICS_REDIS": redis.url, "TOPICS_PREFIX": "topics", "TOPICS_DATABASE": str(database)}
        self._environment.pop("DJANGO_SETTINGS_MODULE", None)
        prepare(str(database))


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis that outlives the servers."""
    redis = RedisServer()
    redis.start()
    yield redis
    redis.close()


@pytest.fixture
def server(tmp_path: Path, redis: RedisServer) -> Iterator[Server]:
    server = Server(tmp_path / "notes.sqlite3", redis)
    try:
        server.start()
        yield server
    finally:
        server.close()
    assert "Traceback" not in server.output, server.output


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """A page of the server, whose script has no mishap."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE * 1000)
    mishaps: list[str] = []
    context.on("weberror", lambda error: mishaps.append(str(error.error)))
    page = context.new_page()
    page.goto(server.url)
    yield page
    context.close()
    assert mishaps == []


class Publisher:
    """Broadcasts numbers, from a process of its own, all the time."""

    def __init__(self, server: Server) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "publish"],
            env=server._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def end(self) -> int:
        """Returns how many numbers there were."""
        output, _ = self._process.communicate(timeout=PATIENCE)
        return int(output)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()


LISTEN = """(topic) => {
  window.got = [];
  window.joins = [];
  window.news = socket.topic(topic);
  news.on("number", ({ n }) => got.push(n));
  news.onJoin(({ recovered }) => joins.push(recovered));
  news.join();
  window.outcomes = { once: [], plain: [], offline: [] };
  window.note = (kind, text) => {
    const promise = news.push("note", { text }, { once: kind === "once" });
    outcomes[kind].push(outcome(promise).then((result) => [text, result]));
  };
  window.settled = (kind) => Promise.all(outcomes[kind]);
}"""

#: Pushes every two milliseconds, so that a few are under way when the server is killed.
TALK = """(round) => {
  let number = 0;
  const talk = () => {
    for (const kind of ["once", "plain"]) note(kind, `${kind} ${round} ${number}`);
    number += 1;
  };
  talk();
  const timer = setInterval(() => (socket.state === "connected" && number < 20 ? talk() : clearInterval(timer)), 2);
}"""


def test_nothing_is_lost_or_doubled_while_servers_are_killed(page: Page, server: Server) -> None:
    page.evaluate(CONNECT, {})
    talk_while_servers_are_killed(page, server, KILLS)


def talk_while_servers_are_killed(page: Page, server: Server, kills: int) -> None:
    """Listen and push over the page's socket, and check that everything has come once."""
    page.evaluate(LISTEN, TOPIC)
    with Publisher(server) as publisher:
        for kill in range(kills):
            page.wait_for_function("(count) => joins.length === count", arg=kill + 1)
            page.wait_for_function("(count) => got.length > count", arg=page.evaluate("got.length"))
            page.evaluate("settled", "offline")
            page.evaluate(TALK, kill)
            server.kill()
            page.wait_for_function("socket.state === 'waiting'")
            page.evaluate("(kill) => [0, 1, 2].forEach((n) => note('offline', `offline ${kill} ${n}`))", kill)
            server.start()
        page.wait_for_function("(count) => joins.length === count", arg=kills + 1)
        sent = publisher.end()
    page.wait_for_function("(last) => got.at(-1) === last", arg=sent - 1)
    assert page.evaluate("got") == list(range(sent))
    assert page.evaluate("joins.slice(1)") == [True] * kills

    # Each push has its outcome before the tables are read: over server-sent events, pushes have requests of their own.
    outcomes = {kind: page.evaluate("settled", kind) for kind in ("once", "plain", "offline")}
    calls, notes = rows(server.database, "calls"), rows(server.database, "notes")

    def of(kind: str, texts: list[str]) -> list[str]:
        return [text for text in texts if text.startswith(kind)]

    # Each `offline` push has been handled once, in order. Each `once` push has been kept once, in order.
    offline = [f"offline {kill} {number}" for kill in range(kills) for number in range(3)]
    assert of("offline", calls) == offline
    assert [text for text, (code, _) in outcomes["offline"] if code == "ok"] == offline
    assert of("once", notes) == [text for text, _ in outcomes["once"]]
    assert {code for _, (code, _) in outcomes["once"]} == {"ok"}
    # Each answered `plain` push has come, in order. A lost one may have come. None has come twice.
    assert {code for _, (code, _) in outcomes["plain"]} <= {"ok", "lost"}
    answered = [text for text, (code, _) in outcomes["plain"] if code == "ok"]
    assert [text for text in of("plain", calls) if text in answered] == answered
    assert len(set(of("plain", calls))) == len(of("plain", calls))


def test_refusal_time_out_leave_and_presence(page: Page) -> None:
    page.evaluate(CONNECT, {})
    assert page.evaluate("outcome(socket.topic('room:closed', { name: 'ada' }).join())") == [
        "refused",
        {"reason": "this room is closed"},
    ]
    page.evaluate(
        """() => {
          window.room = socket.topic("room:lobby", { name: "ada" });
          window.people = new Presence(room);
          window.other = new socket.constructor("/socket");
          other.connect();
        }"""
    )
    assert page.evaluate("outcome(room.join())") == ["ok", {"title": "Lobby"}]
    page.wait_for_function("people.list().length === 1")
    assert page.evaluate("outcome(other.topic('room:lobby', { name: 'bob' }).join())") == ["ok", {"title": "Lobby"}]
    page.wait_for_function("people.list().map(({ key }) => key).join() === 'ada,bob'")
    assert page.evaluate("people.get('bob').map(({ at }) => at)") == ["home"]
    page.evaluate("other.disconnect()")
    page.wait_for_function("people.list().length === 1")

    assert page.evaluate("outcome(room.push('echo', { text: 'hé' }))") == ["ok", {"text": "hé"}]
    assert page.evaluate("outcome(room.push('wait', {}, { timeout: 50 }))") == ["timeout", None]
    page.evaluate("window.second = socket.topic('room:second', { name: 'ada' })")
    page.evaluate("second.join()")
    page.evaluate("second.leave()")
    assert page.evaluate("second.state") == "closed"
    assert page.evaluate("outcome(second.push('echo'))") == ["closed", None]


def test_server_that_ends_says_when_to_come_back(page: Page, server: Server) -> None:
    page.evaluate(CONNECT, {})
    page.wait_for_function("socket.state === 'connected'")
    assert server.stop() == 0
    page.wait_for_function("states.includes('waiting 1012')")
    server.start()
    page.wait_for_function("socket.state === 'connected'")


def test_page_connects_at_once_when_the_network_is_back(page: Page, server: Server) -> None:
    page.evaluate(CONNECT, {"delay": 3_600_000})
    page.wait_for_function("socket.state === 'connected'")
    server.kill()
    page.wait_for_function("socket.state === 'waiting'")
    server.start()
    page.context.set_offline(True)
    page.context.set_offline(False)
    page.wait_for_function("socket.state === 'connected'")
