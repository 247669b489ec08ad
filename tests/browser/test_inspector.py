"""The inspector, as staff see it: two servers and a worker that share a Redis, and Chromium."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..redis_server import RedisServer, needs_redis
from .conftest import CHROMIUM, PATIENCE, ROOT
from .test_chat import expect, sync_api

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.browser,
    needs_redis,
    pytest.mark.skipif(sync_api is None, reason="needs the playwright package: pip install playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH: apt-get install chromium"),
]

PAGE = "/admin/trio_channels_inspector/connection/"
SERVE = ("-m", "trio_channels", "serve", "tests.inspector.site:application", "--bind=127.0.0.1:0")
WORK = ("-m", "django", "runworker", "jobs", "--max-deliveries=1")
PREPARE = """
import django; django.setup()
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
call_command("migrate", verbosity=0)
for name in ("ada", "grace"):
    User.objects.create_user(name)
for name, permissions in (("boss", ["view_connection", "act_on_connection"]), ("clerk", [])):
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
"""
SEND_JOB = """
import django; django.setup()
from trio_channels.layers import get_channel_layer
from trio_channels.sync import async_to_sync
async_to_sync(get_channel_layer().send)("jobs", {"type": "job.do"})
"""
CONNECT = """() => new Promise((resolve) => {
    window.got = []; window.ended = null;
    window.socket = new WebSocket(`ws://${location.host}/room/garden/?token=secret`);
    socket.onmessage = (event) => got.push(event.data);
    socket.onclose = (event) => { ended = event.code };
    socket.onopen = resolve;
})"""


class Process:
    """A program, and its output."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""
        self._ended = False
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            with self._more:
                self.output += line
                self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()

    def said(self, pattern: str) -> str:
        """Wait for a pattern, and return its first group."""
        with self._more:
            found = self._more.wait_for(lambda: re.search(pattern, self.output) or self._ended, PATIENCE)
            assert isinstance(found, re.Match), self.output
            return found[1]

    def close(self) -> None:
        """Kill the program and all that it has started, also if it is stopped."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()


class Site:
    """Two servers, one worker, their Redis and their database."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.marker = folder / "works"
        self._environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "tests.inspector.settings",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "TESTS_DATABASE": str(folder / "database"),
            "TESTS_REDIS": redis.url,
            "TESTS_PREFIX": "site",
            "TESTS_MARKER": str(self.marker),
        }
        self.processes: list[Process] = []
        self.urls: list[str] = []

    @property
    def servers(self) -> list[Process]:
        """The two servers."""
        return self.processes[:2]

    def start(self) -> None:
        """Migrate, and start all; :meth:`close` must follow, also after an error."""
        self.run("-c", PREPARE)
        for command in (SERVE, SERVE, WORK):
            self.processes.append(Process(self._environment, *command))
        addresses = [server.said(r"Running on http://127\.0\.0\.1:(\d+) ") for server in self.servers]
        self.urls = [f"http://127.0.0.1:{port}" for port in addresses]
        self.processes[2].said("(working on jobs)")

    def run(self, *arguments: str) -> str:
        """Run a program to its end; returns its output."""
        return subprocess.run(
            [sys.executable, *arguments], env=self._environment, check=True, capture_output=True, text=True, timeout=120
        ).stdout

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    redis = RedisServer()
    site = Site(tmp_path_factory.mktemp("inspector"), redis)
    try:
        redis.start()
        site.start()
        yield site
    finally:
        site.close()
        redis.close()
    for process in site.servers:
        # Django itself logs a refusal with its traceback.
        assert "Internal Server Error" not in process.output, process.output
        assert "could not be answered" not in process.output, process.output


Open = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: Browser, site: Site) -> Iterator[Open]:
    """``open_page("boss", "/admin/", server=1)``: a page of somebody who is logged in, in a browser of their own."""
    contexts: list[Any] = []
    mishaps: list[str] = []

    def open_it(name: str, path: str, *, server: int = 0, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": 1200, "height": 900}, **options)
        context.on("weberror", lambda error: mishaps.append(str(error.error)))
        contexts.append(context)
        page = context.new_page()
        page.goto(f"{site.urls[server]}/enter/{name}/")
        page.goto(site.urls[server] + path)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert mishaps == []


def connect(open_page: Open, name: str, server: int) -> Page:
    """Somebody with a socket to the room."""
    page = open_page(name, f"/enter/{name}/", server=server)
    page.evaluate(CONNECT)
    return page


def section(page: Page, name: str) -> Any:
    return page.locator(f'section[aria-labelledby="{name}"]')


def rows(page: Page, text: str) -> Any:
    return section(page, "connections").locator("tbody tr").filter(has_text=text)


def until_gone(page: Page, name: str) -> None:
    """Reload until somebody of an earlier test is not connected any more."""
    while rows(page, name).count():
        page.reload()


def test_people_of_both_servers_are_seen_written_to_and_closed(open_page: Open, site: Site) -> None:
    ada = [connect(open_page, "ada", server) for server in (0, 1)]
    grace = connect(open_page, "grace", 1)
    boss = open_page("boss", PAGE)

    for server in site.servers:
        expect(section(boss, "processes")).to_contain_text(str(server.process.pid))
    expect(section(boss, "processes").locator("tbody tr")).to_have_count(3)
    expect(rows(boss, "ada")).to_have_count(2)
    expect(rows(boss, "ada").filter(has_text=str(site.servers[1].process.pid))).to_have_count(1)
    expect(rows(boss, "grace")).to_contain_text("/room/garden/?token=***")
    expect(boss.locator("body")).not_to_contain_text("secret")
    room = section(boss, "groups").locator("tbody tr").filter(has_text="room")
    expect(room.locator("td")).to_have_text(["room", "default", "3", "2"])

    room.get_by_role("link", name="room").click()
    expect(boss.get_by_role("heading", name="Members of room (3)")).to_be_visible()
    boss.get_by_role("button", name="Send to the group…").click()
    boss.get_by_label("Message").fill('{"type": "room.said", "text": "Hello from the staff"}')
    boss.get_by_role("button", name="Send to the group").click()
    expect(boss.get_by_text("The message was sent to the group.")).to_be_visible()
    for page in (*ada, grace):
        page.wait_for_function("() => got.length")
        assert page.evaluate("() => got") == ["Hello from the staff"]

    rows(boss, "ada").first.get_by_role("button", name="Close user…").click()
    expect(boss.get_by_text("Every connection of the user ada is closed")).to_be_visible()
    boss.get_by_role("button", name="Close all connections of the user").click()
    expect(boss.get_by_text("All connections of the user are being closed.")).to_be_visible()
    for page in ada:
        page.wait_for_function("() => ended === 4001")
    assert grace.evaluate("() => ended") is None

    until_gone(boss, "ada")
    rows(boss, "grace").get_by_role("button", name="Close…").click()
    boss.get_by_label("Close code").fill("4009")
    boss.get_by_role("button", name="Close the connection").click()
    grace.wait_for_function("() => ended === 4009")

    site.servers[0].said(r"(staff: boss \(\d+\): close all connections of the user)")
    boss.goto(site.urls[0] + "/admin/")
    expect(boss.get_by_text("live connection", exact=False).first).to_be_visible()


def test_dead_letters_are_retried(open_page: Open, site: Site) -> None:
    site.run("-c", SEND_JOB)
    site.processes[2].said("(it is a dead letter now)")
    boss = open_page("boss", PAGE, server=1)
    letter = section(boss, "queues").locator("tr.letter")
    expect(letter).to_contain_text("job.do, 1 delivery: RuntimeError: not yet")
    expect(letter).not_to_contain_text("secret-of-the-job")

    site.marker.touch()
    letter.get_by_role("button", name="Retry…").click()
    expect(boss.get_by_text("1 dead letter of the channel jobs is sent again.")).to_be_visible()
    boss.get_by_role("button", name="Retry dead letters").click()
    expect(boss.get_by_text("1 dead letter was sent again.")).to_be_visible()
    expect(section(boss, "queues").locator("tr.letter")).to_have_count(0)
    while not site.marker.with_suffix(".done").exists():
        assert site.processes[2].process.poll() is None


def test_staff_without_the_permission_is_refused(open_page: Open) -> None:
    clerk = open_page("clerk", PAGE)
    expect(clerk.locator("body")).to_contain_text("403")
    clerk.goto(clerk.url.partition("/admin/")[0] + "/admin/")
    expect(clerk.locator("body")).not_to_contain_text("Live connections")


def test_stopped_process_did_not_answer(open_page: Open, site: Site) -> None:
    boss = open_page("boss", PAGE)
    expect(section(boss, "processes")).not_to_contain_text("did not answer")
    stopped = site.servers[1].process.pid
    os.kill(stopped, signal.SIGSTOP)
    try:
        boss.reload()
        row = section(boss, "processes").locator("tr.bad")
        expect(row).to_contain_text(f"{stopped} on")
        expect(row).to_contain_text("did not answer")
        expect(boss.get_by_role("alert")).to_contain_text("1 process did not answer")
        table = site.run("-m", "django", "channels", "--once")
        assert re.search(rf"{stopped} .* did not answer", table)
        assert "2 processes answered, 1 did not" in table
    finally:
        os.kill(stopped, signal.SIGCONT)
    while section(boss, "processes").locator("tr.bad").count():  # its first answers may be late
        boss.reload()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_can_be_read_on_a_phone(scheme: str, open_page: Open, tmp_path: Path) -> None:
    connect(open_page, "ada", 0)
    boss = open_page("boss", PAGE, color_scheme=scheme)
    boss.set_viewport_size({"width": 390, "height": 844})
    expect(rows(boss, "ada")).to_have_count(1)
    assert boss.evaluate("() => document.documentElement.scrollWidth") <= 390
    for cell in rows(boss, "ada").locator("td").all():
        box = cell.bounding_box()
        assert box is None or box["x"] + box["width"] <= 390
    if folder := os.environ.get("TESTS_SCREENSHOTS"):
        boss.screenshot(path=f"{folder}/inspector-{scheme}-phone.png", full_page=True)
        boss.set_viewport_size({"width": 1400, "height": 900})
        boss.screenshot(path=f"{folder}/inspector-{scheme}-wide.png", full_page=True)
    colours = "() => { const it = getComputedStyle(document.querySelector('.inspector td')); return it.color }"
    light = sum(map(int, re.findall(r"\d+", boss.evaluate(colours))[:3])) > 3 * 128
    assert light is (scheme == "dark")
