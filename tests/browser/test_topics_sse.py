"""``topics.js`` in Chromium behind a proxy that blocks WebSockets: it falls back to server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from ..redis_server import needs_redis
from .blocking_proxy import BlockingProxy, Way
from .conftest import CHROMIUM, PATIENCE
from .test_topics_js import (
    CONNECT,
    LISTEN,
    Publisher,
    Server,
    redis,
    rows,
    server,
    sync_api,
    talk_while_servers_are_killed,
)
from .topics_server import TOPIC

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["redis", "server"]  # fixtures

pytestmark = [
    pytest.mark.browser,
    needs_redis,
    pytest.mark.skipif(sync_api is None, reason="needs the playwright package: pip install playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH: apt-get install chromium"),
]

KILLS = 3
CUTS = 8

Block = Callable[[Way], tuple["Page", BlockingProxy]]


@pytest.fixture
def block(browser: Browser, server: Server) -> Iterator[Block]:
    """Makes a page of the server behind a proxy; its script has no mishap."""
    proxies: list[BlockingProxy] = []
    mishaps: list[str] = []
    context = browser.new_context()
    context.set_default_timeout(PATIENCE * 1000)
    context.on("weberror", lambda error: mishaps.append(str(error.error)))

    def arrive(way: Way) -> tuple[Page, BlockingProxy]:
        proxies.append(BlockingProxy(server.port, way))
        page = context.new_page()
        page.goto(proxies[-1].url)
        return page, proxies[-1]

    yield arrive
    context.close()
    for proxy in proxies:
        proxy.close()
    assert mishaps == []


@pytest.mark.parametrize("way", ["refuse", "hang"])
def test_nothing_is_lost_or_doubled_while_servers_are_killed(block: Block, server: Server, way: Way) -> None:
    page, proxy = block(way)
    page.evaluate(CONNECT, {"fallbackAfter": 500})
    talk_while_servers_are_killed(page, server, KILLS)
    assert proxy.handshakes == (2 if way == "refuse" else 1)


def test_session_outlives_connections_that_are_cut(block: Block, server: Server) -> None:
    page, proxy = block("refuse")
    page.evaluate(CONNECT, {})
    page.evaluate(LISTEN, TOPIC)
    page.wait_for_function("joins.length === 1")
    with Publisher(server) as publisher:
        for cut in range(CUTS):
            page.evaluate("(cut) => { for (let n = 0; n < 20; n += 1) note('plain', `${cut} ${n}`) }", cut)
            proxy.cut()
            page.wait_for_function("(count) => got.length > count", arg=page.evaluate("got.length"))
        sent = publisher.end()
    page.wait_for_function("(last) => got.at(-1) === last", arg=sent - 1)
    assert page.evaluate("got") == list(range(page.evaluate("got[0]"), sent))
    assert page.evaluate("states.filter((state) => state === 'connected').length") == 1
    texts = [f"{cut} {number}" for cut in range(CUTS) for number in range(20)]
    assert page.evaluate("settled('plain')") == [[text, ["ok", len(text)]] for text in texts]
    assert rows(server.database, "calls") == texts


def test_tab_remembers_the_fallback(block: Block) -> None:
    page, proxy = block("refuse")
    page.evaluate(CONNECT, {})
    page.wait_for_function("socket.state === 'connected'")
    proxy.way = "pass"
    handshakes = proxy.handshakes
    page.reload()
    page.evaluate(CONNECT, {})
    page.wait_for_function("socket.state === 'connected'")
    assert proxy.handshakes == handshakes
    page.evaluate("sessionStorage.clear()")
    page.reload()
    page.evaluate(CONNECT, {})
    page.wait_for_function("socket.state === 'connected'")
    assert proxy.handshakes == handshakes + 1


def test_codes_of_the_server_arrive(block: Block, server: Server) -> None:
    page, _ = block("refuse")
    page.evaluate(CONNECT, {})
    page.evaluate("window.room = socket.topic('room:lobby', { name: 'ada' })")
    assert page.evaluate("outcome(room.join())") == ["ok", {"title": "Lobby"}]
    assert server.stop() == 0
    page.wait_for_function("states.includes('waiting 1012')")
    server.start()
    page.wait_for_function("room.state === 'joined'")
    page.evaluate("outcome(room.push('close', 4003))")
    page.wait_for_function("states.at(-1) === 'disconnected 4003'")


def test_page_that_closes_leaves_at_once(block: Block) -> None:
    page, _ = block("refuse")
    page.evaluate(CONNECT, {})
    page.evaluate(
        """async () => {
          window.room = socket.topic("room:lobby", { name: "ada" });
          window.people = new Presence(room);
          window.other = new socket.constructor("/socket", { fallbackTries: 0 });
          other.connect();
          await Promise.all([room.join(), other.topic("room:lobby", { name: "bob" }).join()]);
        }"""
    )
    page.wait_for_function("people.list().length === 2")
    page.evaluate("other.disconnect()")
    page.wait_for_function("people.list().length === 1", timeout=10_000)  # sooner than LONG_POLL_TIMEOUT
