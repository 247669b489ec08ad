"""The client ``phoenix`` from npm, unmodified, in Chromium: all that it does in Node, over both transports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..topics.phoenix_client import OF_WEBSOCKETS, SCENARIOS, phoenix
from .conftest import CHROMIUM, PATIENCE, ROOT, ChatServer

try:
    from playwright import sync_api
except ImportError:
    sync_api = None  # type: ignore[assignment]
if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["phoenix"]  # a fixture

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(sync_api is None, reason="needs the playwright package: pip install playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH: apt-get install chromium"),
]

CASES = [
    *((scenario, "websocket") for scenario in SCENARIOS),
    *((scenario, "longpoll") for scenario in SCENARIOS if scenario not in OF_WEBSOCKETS),
]


class Site(ChatServer):
    """The site, as a process."""

    def __init__(self, phoenix: Path) -> None:
        super().__init__(phoenix)
        self._environment |= {"DJANGO_SETTINGS_MODULE": "tests.browser.topics_settings", "PHOENIX": str(phoenix)}

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "trio_channels", "serve", "tests.browser.topics_site:application"),
                *("--bind", f"127.0.0.1:{self.port}"),
            ],
            env=self._environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def site(phoenix: Path) -> Iterator[Site]:
    site = Site(phoenix)
    try:
        site.start()
        yield site
    finally:
        site.close()


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    yield page
    context.close()


def run(page: Page, site: Site, scenario: str, transport: str, host: str = "127.0.0.1") -> None:
    """Run a scenario in a page of `host`."""
    page.goto(f"http://{host}:{site.port}/")
    page.wait_for_function("document.title === 'ready'")
    done = page.evaluate("([...given]) => scenario(...given)", [scenario, transport, f"127.0.0.1:{site.port}"])
    assert done == "passed"


@pytest.mark.parametrize(("scenario", "transport"), CASES)
def test_client_of_npm_in_chromium(page: Page, site: Site, scenario: str, transport: str) -> None:
    run(page, site, scenario, transport)


def test_page_of_another_origin_uses_long_polling(page: Page, site: Site) -> None:
    requests: list[Any] = []
    page.on("request", lambda request: requests.append(request))
    run(page, site, "repliesInOrder", "longpoll", host="localhost")
    assert {request.method for request in requests if "/longpoll" in request.url} >= {"GET", "POST"}


def test_page_of_a_foreign_origin_is_refused(page: Page, site: Site) -> None:
    page.goto(f"http://evil.localhost:{site.port}/")
    page.wait_for_function("document.title === 'ready'")
    opened = page.evaluate(
        """host => new Promise(resolve => {
          const socket = new phoenix.Socket(`ws://${host}/socket`, {transport: phoenix.LongPoll})
          socket.onOpen(() => resolve("open"))
          socket.onError(() => resolve("refused"))
          socket.connect()
        })""",
        f"127.0.0.1:{site.port}",
    )
    assert opened == "refused"
