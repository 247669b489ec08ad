"""The chat at the end of the tutorial, as people see it: a server in a process of its own, and Chromium."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..docs.test_tutorial import tutorial
from .conftest import CHROMIUM, PATIENCE, ROOT, ChatServer, Visitor

try:
    from playwright import sync_api
except ImportError:
    sync_api = None  # type: ignore[assignment]
if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(sync_api is None, reason="needs the playwright package: pip install playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH: apt-get install chromium"),
]

expect = sync_api and sync_api.expect
Arrive = Callable[..., Visitor]
PASSWORD = "correct horse battery"
PHONE = {"viewport": {"width": 390, "height": 720}, "device_scale_factor": 2, "has_touch": True}
WIDE = {"viewport": {"width": 1100, "height": 640}}


class TutorialServer(ChatServer):
    """The project as it is after the last part, and the command of its page."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "unused.sqlite3")
        self._project = folder / "mychat"
        self._environment["DJANGO_SETTINGS_MODULE"] = "mysite.settings"

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        serve = ("-m", "trio_channels", "serve", "mysite.asgi:application", "--bind", f"127.0.0.1:{self.port}")
        return subprocess.Popen(
            [sys.executable, *serve],
            cwd=self._project,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, with an empty database."""
    folder = tmp_path_factory.mktemp("tutorial") / "mychat"
    assert tutorial.main([str(len(tutorial.PARTS)), str(folder)]) == 0
    return folder


@pytest.fixture
def server(tmp_path: Path, project: Path) -> Iterator[TutorialServer]:
    shutil.copytree(project, tmp_path / "mychat")
    server = TutorialServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.close()
    assert "Traceback" not in server.output, server.output


def sign_up(somebody: Visitor, name: str) -> Page:
    page = somebody.open("/sign-up/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password:", exact=True).fill(PASSWORD)
    page.get_by_label("Password confirmation").fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    expect(page.get_by_role("textbox")).to_be_visible()
    return page


def go_to(page: Page, room: str) -> None:
    page.get_by_role("link", name=room).click()
    expect(page.get_by_role("link", name=room)).to_have_attribute("aria-current", "page")


def say(page: Page, text: str) -> None:
    page.get_by_role("textbox").fill(text)
    page.keyboard.press("Enter")


def messages(page: Page) -> Locator:
    """The messages of the room that the page shows, without their authors."""
    return page.locator(".messages:visible li:not(.waiting)")


def test_restart_of_the_server_loses_and_doubles_nothing(visitor: Arrive, server: TutorialServer) -> None:
    ada, ben = sign_up(visitor(), "ada"), sign_up(visitor(), "ben")
    say(ada, "one")
    expect(messages(ben)).to_contain_text(["one"])
    server.kill()
    for page in ada, ben:
        expect(page.locator("#state")).to_contain_text("what you write waits")
    for page, text in (ada, "two"), (ben, "<b>three</b>"):
        say(page, text)
        expect(page.locator(".waiting")).to_contain_text([text])
    server.start()
    for page in ada, ben:
        expect(page.locator("#state")).to_contain_text("connected again", timeout=PATIENCE * 1000)
        expect(page.locator(".waiting")).to_have_count(0)
        expect(messages(page)).to_have_count(3)
        expect(messages(page)).to_contain_text(
            [re.compile("one"), re.compile("two|<b>three"), re.compile("two|<b>three")]
        )


def test_people_see_who_is_where_and_what_is_unread(visitor: Arrive) -> None:
    ada, ben, reader = sign_up(visitor(), "ada"), sign_up(visitor(), "ben"), visitor().open("/#kitchen")
    kitchen = ada.get_by_role("link", name="kitchen")
    go_to(ben, "kitchen")
    expect(kitchen).to_contain_text("ben")
    expect(kitchen).to_contain_text("a visitor")
    say(ben, "tea?")
    expect(kitchen.locator("b")).to_have_text("1")
    expect(messages(reader)).to_contain_text(["tea?"])
    expect(reader.get_by_text("You may read here, but not write.")).to_be_visible()
    go_to(ada, "kitchen")
    expect(kitchen.locator("b")).to_have_text("")
    expect(messages(ada)).to_contain_text(["tea?"])
    go_to(ada, "news")
    expect(ada.get_by_role("textbox")).to_be_hidden()
    ben.get_by_role("button", name="Log out").click()
    expect(kitchen).not_to_contain_text("ben")


def test_screenshots_of_the_tutorial_can_be_taken(visitor: Arrive, tmp_path: Path) -> None:
    """With ``UPDATE_SCREENSHOTS=1`` they go where the documentation has them."""
    folder = ROOT / "docs" / "images" if os.environ.get("UPDATE_SCREENSHOTS") else tmp_path
    mira, tom = sign_up(reader := visitor(), "mira"), sign_up(visitor(), "tom")
    say(tom, "Who stays for a quiz? The washing-up is at stake.")
    say(mira, "I do. Let me just put the kettle on, so that nobody can say afterwards that I was distracted.")
    say(tom, "/quiz")
    question = tom.get_by_text("What is")
    first, second = re.findall(r"(\d+) times (\d+)", question.text_content())[0]
    say(mira, str(int(first) * int(second)))
    expect(tom.get_by_text("mira is right!")).to_be_visible()
    kim = sign_up(visitor(), "kim")
    go_to(kim, "kitchen")
    cookies = reader.context.cookies()
    mira.close()
    for scheme, suffix in ("light", ""), ("dark", "-dark"):
        for name, screen in ("tutorial", WIDE), ("tutorial-phone", PHONE):
            again = visitor(color_scheme=scheme, **screen)
            again.context.add_cookies(cookies)
            page = again.open("/")
            expect(messages(page).last).to_contain_text("mira is right!")
            say(kim, "The kettle boils.")
            expect(page.get_by_role("link", name="kitchen").locator("b")).to_have_text("1")
            page.screenshot(path=folder / f"{name}{suffix}.png", animations="disabled")
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
            page.close()
