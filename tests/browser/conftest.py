"""A real server, a real browser, and people who use them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..ports import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

ROOT = Path(__file__).parents[2]
SERVE = ROOT / "examples" / "chat" / "serve.py"

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: The first is for containers, where Chromium's own sandbox does not start; the rest keep it from phoning home.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

#: Generous: only a test that fails waits so long.
PATIENCE = 30.0


class ChatServer:
    """``serve.py`` as a process of its own, with a database of its own, that can be ended and started again."""

    script = SERVE
    #: How many servers it starts.
    servers = 1

    def __init__(self, database: Path) -> None:
        self.database = database
        self.port = free_port(*range(1, self.servers))
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = ""
        self._environment = os.environ | {
            "CHAT_DATABASE": str(database),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        self._process: subprocess.Popen[str] | None = None

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``serve.py`` with these arguments, in a process group of its own, as a terminal does."""
        return subprocess.Popen(
            [sys.executable, str(self.script), *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def start(self) -> None:
        """Start, and return when it listens."""
        self._process = process = self.command(str(self.port))
        watchdog = threading.Timer(PATIENCE, self.signal, [signal.SIGKILL])
        watchdog.start()
        try:
            for _ in range(self.servers):
                while "Running on" not in (line := process.stdout.readline()):
                    self.output += line
                    assert line, f"the server ended: {self.output}"
        finally:
            watchdog.cancel()
            watchdog.join()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and its workers, as Ctrl-C in a terminal does."""
        os.killpg(self._process.pid, number)

    def wait(self) -> int:
        """Wait for the end; returns the exit code."""
        self.output += self._process.communicate(timeout=PATIENCE)[0]
        code, self._process = self._process.returncode, None
        return code

    def stop(self) -> int:
        """End the server as Ctrl-C does; returns the exit code."""
        self.signal(signal.SIGINT)
        return self.wait()

    def kill(self) -> None:
        """Kill the server and its workers, and wait for the end."""
        self.signal(signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        """At the end of a test: kill the server if it still runs."""
        if self._process is not None:
            self.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ChatServer]:
    """A running chat; its output must not hold a traceback."""
    server = ChatServer(tmp_path / "chat.sqlite3")
    try:
        server.start()
        yield server
    finally:
        server.close()
    assert "Traceback" not in server.output, server.output


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Visitor:
    """Somebody at a browser of their own. Each page is a tab.

    Attributes:
        mishaps: script errors and dialogs in any of the tabs; must stay empty.
    """

    def __init__(self, context: BrowserContext, server: ChatServer) -> None:
        self.context = context
        self.mishaps: list[str] = []
        self._url = server.url
        context.on("weberror", lambda error: self.mishaps.append(f"error: {error.error}"))
        context.on("dialog", self._dismiss)

    def _dismiss(self, dialog: Any) -> None:
        self.mishaps.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, path: str) -> Page:
        """Open a page of the site in a new tab."""
        page = self.context.new_page()
        page.goto(self._url + path)
        return page

    def enter(self, room: str, name: str | None = None) -> Page:
        """Enter a room by the front page, as people do."""
        page = self.open("/")
        page.get_by_role("combobox", name="Room").fill(room)
        if name is not None:
            page.get_by_role("textbox", name="Your name").fill(name)
        page.get_by_role("button", name="Enter").click()
        page.wait_for_url(re.compile("/chat/"))
        connected(page)
        return page

    def sign_up(self, name: str, password: str = "correct horse battery") -> Page:
        """Make an account."""
        page = self.open("/sign-up/")
        page.get_by_label("Username").fill(name)
        page.get_by_label("Password", exact=True).fill(password)
        page.get_by_label("Password confirmation").fill(password)
        page.get_by_role("button", name="Sign up").click()
        page.get_by_role("button", name="Sign out").wait_for()
        return page


@pytest.fixture
def visitor(browser: Browser, server: ChatServer) -> Iterator[Callable[..., Visitor]]:
    """Makes visitors; options are those of a browser context, such as ``color_scheme="dark"``."""
    visitors: list[Visitor] = []

    def arrive(**options: Any) -> Visitor:
        options = {
            "locale": "en-GB",
            "timezone_id": "Europe/London",
            "viewport": {"width": 1200, "height": 800},
        } | options
        visitors.append(Visitor(browser.new_context(**options), server))
        return visitors[-1]

    yield arrive
    for one in visitors:
        one.context.close()
    assert [mishap for one in visitors for mishap in one.mishaps] == []


def connected(page: Page) -> None:
    """Wait until the page says that it is connected."""
    page.locator('#state[data-state="connected"]').wait_for(state="attached", timeout=PATIENCE * 1000)
