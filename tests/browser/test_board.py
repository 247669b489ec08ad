"""The board example, as people see it: ``serve.py`` in a process of its own, and Chromium."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import CHROMIUM, ROOT, ChatServer, Visitor, connected

try:
    from playwright import sync_api
except ImportError:
    sync_api = None  # type: ignore[assignment]
if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, WebSocketRoute

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(sync_api is None, reason="needs the playwright package: pip install playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH: apt-get install chromium"),
]

expect = sync_api and sync_api.expect
Arrive = Callable[..., Visitor]
TICKETS, ICONS, DELAYS = "Tickets for groups", "New icons for night buses", "Delays show within a minute"
MAP = "A map of all stops"
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True}


class BoardServer(ChatServer):
    """``serve.py`` of the board."""

    script = ROOT / "examples" / "board" / "serve.py"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "unused.sqlite3")
        self._environment["BOARD_DATABASE"] = str(folder / "board.sqlite3")


@pytest.fixture(scope="module")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the database as the first start makes it: that takes a while, most of it for passwords."""
    folder = tmp_path_factory.mktemp("board")
    server = BoardServer(folder)
    try:
        server.start()
        assert server.stop() == 0, server.output
    finally:
        server.close()
    assert "The board “City bus” is new." in server.output
    return folder


@pytest.fixture
def server(tmp_path: Path, first_start: Path) -> Iterator[BoardServer]:
    """A running board; its output must not hold a traceback."""
    shutil.copytree(first_start, tmp_path, dirs_exist_ok=True)
    server = BoardServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.close()
    assert "Traceback" not in server.output, server.output


def enter(somebody: Visitor, name: str) -> Page:
    """Enter the demo's board as a person of the demo, by the front page."""
    page = somebody.open("/")
    page.get_by_role("button", name=f"Enter as {name}").click()
    page.get_by_role("link", name="City bus").click()
    connected(page)
    expect(page.locator("#board .card")).to_have_count(10)
    return page


def column(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=re.compile(f"^{name}"))


def titles(page: Page, name: str) -> Locator:
    """The titles of a column's cards."""
    return column(page, name).locator(".card .title")


def card(page: Page, title: str) -> Locator:
    return page.locator("#board .card", has_text=title)


def drag(page: Page, title: str, target: str, *, drop: bool = True) -> None:
    """Drag a card to the end of a column, with the mouse."""
    card(page, title).hover()
    page.mouse.down()
    box = column(page, target).locator(".area").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 8, steps=6)
    if drop:
        page.mouse.up()


def move_by_keys(page: Page, title: str, *keys: str) -> None:
    page.get_by_role("button", name=f"Move “{title}”").focus()
    for key in ("Space", *keys, "Space"):
        page.keyboard.press(key)


def test_two_people_see_each_move_at_once(visitor: Arrive) -> None:
    ada, ben = enter(visitor(), "Ada"), enter(visitor(), "Ben")
    expect(ada.locator("#people li")).to_have_count(2)

    drag(ada, TICKETS, "Done", drop=False)
    expect(ben.locator(".cursor span")).to_have_text("Ada")
    expect(card(ben, TICKETS)).to_have_attribute("data-holder", "Ada")
    ada.mouse.up()
    for page in ada, ben:
        expect(titles(page, "Done").last).to_have_text(TICKETS)
        expect(card(page, TICKETS)).not_to_have_class(re.compile("waits|held"))
    expect(ben.locator("[data-holder]")).to_have_count(0)

    move_by_keys(ben, ICONS, "ArrowUp", "ArrowRight", "ArrowUp")
    for page in ada, ben:
        expect(titles(page, "In progress").first).to_have_text(ICONS)
    expect(ben.get_by_role("button", name=f"Move “{ICONS}”")).to_be_focused()

    column(ada, "Ideas").get_by_role("textbox").fill("<b>A bell</b>")
    ada.keyboard.press("Enter")
    for page in ada, ben:
        expect(titles(page, "Ideas").last).to_have_text("<b>A bell</b>")
    ben.context.close()
    expect(ada.locator("#people li")).to_have_count(1)


def test_escape_and_a_lost_focus_put_a_card_back(visitor: Arrive) -> None:
    ada = enter(visitor(), "Ada")
    drag(ada, TICKETS, "Done", drop=False)
    expect(titles(ada, "Done").last).to_have_text(TICKETS)
    ada.keyboard.press("Escape")
    expect(titles(ada, "In progress").first).to_have_text(TICKETS)
    ada.mouse.up()
    ada.get_by_role("button", name=f"Move “{TICKETS}”").focus()
    ada.keyboard.press("Space")
    ada.keyboard.press("ArrowRight")
    expect(ada.locator("#announcements")).to_have_text("Done, place 1 of 3.")
    ada.keyboard.press("Tab")
    expect(titles(ada, "In progress").first).to_have_text(TICKETS)
    expect(ada.locator(".held, .ghost, .waits")).to_have_count(0)


def test_finger_moves_a_card_to_a_column_beyond_the_edge(visitor: Arrive) -> None:
    ada, ben = enter(visitor(**PHONE), "Ada"), enter(visitor(), "Ben")
    fingers = ada.context.new_cdp_session(ada)

    def touch(kind: str, x: float = 0, y: float = 0) -> None:
        points = [] if kind == "touchEnd" else [{"x": x, "y": y}]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    box = card(ada, MAP).locator(".grip").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch("touchStart", x, y)
    touch("touchMove", x + 4, y + 8)
    touch("touchMove", 380, y)  # the board scrolls along
    expect(card(ben, MAP)).to_have_attribute("data-holder", "Ada")
    expect(titles(ada, "Done")).to_contain_text([MAP])
    touch("touchEnd")
    for page in ada, ben:
        expect(titles(page, "Done")).to_contain_text([MAP])
        expect(page.locator(".ghost, .held, .waits, [data-holder]")).to_have_count(0)


def test_moves_of_one_card_go_one_after_the_other(visitor: Arrive) -> None:
    ada, ben = enter(visitor(), "Ada"), enter(visitor(), "Ben")
    ada.get_by_role("button", name=f"Move “{TICKETS}”").focus()
    for key in (
        "Space",
        "ArrowRight",
        "Space",
        "Space",
        "ArrowLeft",
        "ArrowLeft",
        "Space",
        "Space",
        "ArrowUp",
        "Space",
    ):
        ada.keyboard.press(key)
    for page in ada, ben:
        expect(titles(page, "To do").first).to_have_text(TICKETS)
        expect(page.locator(".waits, .held")).to_have_count(0)
    expect(ada.get_by_role("alert")).to_be_hidden()


def test_move_on_an_old_view_snaps_back(visitor: Arrive) -> None:
    held: list[str | bytes] = []
    is_held = False

    def forward(route: WebSocketRoute) -> None:
        def from_server(message: str | bytes) -> None:
            if is_held and '"change"' in str(message):
                held.append(message)
            else:
                route.send(message)

        route.connect_to_server().on_message(from_server)

    somebody = visitor()
    routes: list[WebSocketRoute] = []
    somebody.context.route_web_socket(re.compile("/socket/"), lambda route: (routes.append(route), forward(route)))
    ada, ben = enter(somebody, "Ada"), enter(visitor(), "Ben")
    is_held = True
    drag(ben, TICKETS, "Ideas")
    expect(card(ben, TICKETS)).not_to_have_class(re.compile("waits"))
    drag(ada, TICKETS, "Done")  # Ada's page does not know of Ben's move yet
    expect(ada.get_by_role("alert")).to_have_text(f"Somebody else has just moved “{TICKETS}” to Ideas.")
    expect(titles(ada, "In progress").first).to_have_text(TICKETS)
    for message in held:
        routes[-1].send(message)
    for page in ada, ben:
        expect(titles(page, "Ideas").last).to_have_text(TICKETS)


PUSH_AS_ROSA = """async () => {
  const {Socket} = await import("topics")
  const socket = new Socket("/socket")
  const topic = socket.topic("board:city-bus")
  socket.connect()
  await topic.join()
  const id = Number(document.querySelector(".card").dataset.card)
  const column = Number(document.querySelector("[data-column]:last-of-type").dataset.column)
  const move = {card: id, column, before: null, seen: 0}
  return topic.push("card.move", move, {once: true}).catch((error) => error.response)
}"""


def test_reader_cannot_move_and_gets_new_rights_at_once(visitor: Arrive) -> None:
    rosa, admin = enter(visitor(), "Rosa"), visitor()
    board = enter(admin, "Ada")
    expect(rosa.get_by_text("You may read this board, but not change it.")).to_be_visible()
    expect(rosa.locator(".grip:visible, .add:visible")).to_have_count(0)
    drag(rosa, TICKETS, "Done")
    assert rosa.evaluate(PUSH_AS_ROSA)["reason"] == "read only"
    expect(titles(board, "In progress").first).to_have_text(TICKETS)

    page = admin.open("/admin/board/board/1/change/")
    row = page.locator("#members-group tr.has_original", has_text="rosa, who may read")
    row.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(rosa.locator(".grip:visible")).to_have_count(10)
    drag(rosa, TICKETS, "Done")
    expect(titles(board, "Done").last).to_have_text(TICKETS)


def test_admin_action_shows_on_boards_and_activity(visitor: Arrive) -> None:
    admin, somebody = visitor(), visitor()
    enter(admin, "Ada")
    ben = enter(somebody, "Ben")
    activity = somebody.open("/boards/city-bus/activity/")
    connected(activity)
    drag(ben, TICKETS, "Done", drop=False)  # Ben holds the card while it is archived
    page = admin.open("/admin/board/card/")
    for title in (TICKETS, DELAYS):
        page.locator("tr", has_text=title).get_by_role("checkbox").check()
    page.locator("select[name=action]").select_option("archive")
    page.get_by_role("button", name=re.compile("Go|Run")).click()
    expect(page.get_by_text("Archived: 2.")).to_be_visible()
    expect(ben.locator("#board .card")).to_have_count(8)
    expect(ben.locator(".ghost, .held")).to_have_count(0)
    ben.mouse.up()
    expect(activity.locator("#changes li")).to_have_text(re.compile("ada archived 2 cards"))


def test_killed_server_loses_no_move(visitor: Arrive, server: BoardServer) -> None:
    one, two = visitor(), visitor()
    ada, ben = enter(one, "Ada"), enter(two, "Ben")
    activity = two.open("/boards/city-bus/activity/")
    connected(activity)
    drag(ada, DELAYS, "To do")  # its message may be in the outbox when the server dies
    expect(card(ada, DELAYS)).to_have_class(re.compile("waits"))
    server.kill()
    expect(ada.locator("#state")).to_have_attribute("data-state", "reconnecting")
    drag(ada, TICKETS, "Done")
    column(ada, "Ideas").get_by_role("textbox").fill("Written offline")
    ada.keyboard.press("Enter")
    expect(titles(ada, "Done").last).to_have_text(TICKETS)
    expect(card(ada, TICKETS)).to_have_class(re.compile("waits"))
    expect(ada.locator("#state")).to_contain_text("to be sent")
    server.start()
    for page in ada, ben:
        connected(page)
        expect(titles(page, "To do").last).to_have_text(DELAYS)
        expect(titles(page, "Done").last).to_have_text(TICKETS)
        expect(titles(page, "Ideas")).to_have_count(4)
        expect(page.locator(".waits")).to_have_count(0)
    expect(activity.locator("#changes li")).to_have_count(3)


def test_stranger_sees_nothing(visitor: Arrive) -> None:
    eve = visitor()
    page = eve.open("/sign-in/")
    page.get_by_label("Username").fill("eve")
    page.get_by_label("Password").fill("demo")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("You are not a member of any board.")).to_be_visible()
    for path in ("/boards/city-bus/", "/boards/city-bus/activity/"):
        assert eve.context.request.get(page.url.rstrip("/") + path).status == 404


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_on_a_phone_and_a_wide_screen(visitor: Arrive, tmp_path: Path, scheme: str) -> None:
    """With ``UPDATE_SCREENSHOTS=1`` the pictures go where the documentation has them."""
    folder = ROOT / "docs" / "images" if os.environ.get("UPDATE_SCREENSHOTS") and scheme == "light" else tmp_path
    ada = enter(visitor(color_scheme=scheme, viewport={"width": 1200, "height": 640}), "Ada")
    ben = enter(visitor(color_scheme=scheme, **PHONE), "Ben")
    card(ada, MAP).hover()
    ada.mouse.down()
    ada.mouse.move(200, 330, steps=4)
    expect(card(ben, MAP)).to_have_attribute("data-holder", "Ada")
    expect(ben.locator(".cursor")).to_be_visible()
    ben.screenshot(path=folder / "board-phone.png", animations="disabled")
    ada.mouse.up()
    expect(card(ben, MAP)).not_to_have_attribute("data-holder", "Ada")
    ben.get_by_role("button", name=f"Move “{TICKETS}”").press("Space")
    card(ben, TICKETS).hover()
    expect(ada.locator(".cursor span")).to_have_text("Ben")
    expect(card(ada, TICKETS)).to_have_attribute("data-holder", "Ben")
    ada.screenshot(path=folder / "board.png", animations="disabled")
    for page in ada, ben:
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
