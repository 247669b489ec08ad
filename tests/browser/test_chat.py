"""The chat example, as people see it: ``serve.py`` in a process of its own, and Chromium."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import CHROMIUM, PATIENCE, ROOT, ChatServer, Visitor, connected

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


def say(page: Page, text: str) -> None:
    """Send a message, and wait until it has come back."""
    page.get_by_label("Message to").fill(text)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Message to")).to_have_value("")
    expect(texts(page).last).to_have_text(text)


def texts(page: Page) -> Locator:
    """The messages that are shown."""
    return page.locator("#log .messages .text")


def waiting(page: Page) -> Locator:
    """The messages that are not sent."""
    return page.locator("#log .waiting .text")


def people(page: Page) -> Locator:
    """The names of who is in the room, oneself first."""
    return page.locator("#people .name")


# -- talking ----------------------------------------------------------------------------------------------------------


def test_message_arrives_in_its_room_and_nowhere_else(visitor: Arrive) -> None:
    ada, tom, elsewhere = visitor().enter("garden", "Ada"), visitor().enter("garden", "Tom"), visitor().enter("kitchen")

    say(ada, "Did the seedlings make it?")
    say(tom, "All but two.")
    say(elsewhere, "Is anybody here?")

    expect(texts(ada)).to_have_text(["Did the seedlings make it?", "All but two."])
    expect(texts(tom)).to_have_text(["Did the seedlings make it?", "All but two."])
    expect(texts(elsewhere)).to_have_text(["Is anybody here?"])
    expect(tom.locator("#log .byline .name").first).to_have_text("Ada")


def test_who_joins_is_shown_the_last_fifty_messages_in_order(visitor: Arrive) -> None:
    ada = visitor().enter("garden", "Ada")
    for number in range(52):
        say(ada, f"number {number}")

    tom = visitor().enter("garden", "Tom")

    expect(texts(tom)).to_have_text([f"number {number}" for number in range(2, 52)])


def test_shift_enter_starts_a_line_and_enter_sends(visitor: Arrive) -> None:
    page = visitor().enter("garden")
    page.get_by_label("Message to").press_sequentially("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")

    expect(texts(page)).to_have_count(1)
    assert texts(page).inner_text() == "one\ntwo"


def test_blank_message_is_ignored(visitor: Arrive) -> None:
    page = visitor().enter("garden")
    page.evaluate("() => { document.getElementById('text').value = ' \\n ' }")
    page.get_by_role("button", name="Send").click()

    say(page, "hello")

    expect(texts(page)).to_have_text(["hello"])


def test_message_too_long_is_refused_and_the_next_one_sent(visitor: Arrive) -> None:
    page = visitor().enter("garden")
    page.evaluate("() => document.getElementById('text').removeAttribute('maxlength')")
    page.get_by_label("Message to").fill("x" * 2001)
    page.keyboard.press("Enter")

    expect(page.get_by_role("alert")).to_have_text("A message has at most 2,000 characters; this one has 2,001.")
    say(page, "short")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(texts(page)).to_have_text(["short"])


def test_html_in_messages_and_names_is_text(visitor: Arrive) -> None:
    attack = "<img src=x onerror=\"window.broken = true; alert('!')\"><script>window.broken = true</script>"
    name = "<b onclick=alert(1)>Eve</b>"
    other, eve = visitor().enter("garden", "Ada"), visitor().enter("garden", name)

    say(eve, attack)
    say(eve, "after it")

    for page in other, eve:
        expect(texts(page)).to_have_text([attack, "after it"])
        expect(page.locator("#people")).to_contain_text(name)
        assert page.evaluate("() => window.broken") is None
        assert page.locator("#log img, #log script, #log b, #people b, .account b").count() == 0


# -- who is there -----------------------------------------------------------------------------------------------------


def test_people_are_seen_to_come_and_go(visitor: Arrive) -> None:
    ada, tom = visitor(), visitor()
    page = ada.enter("garden", "Ada")
    expect(people(page)).to_have_text(["Ada"])

    toms = tom.enter("garden", "Tom")
    expect(people(page)).to_have_text(["Ada", "Tom"])
    expect(people(toms)).to_have_text(["Tom", "Ada"])
    expect(page.locator("#people-count")).to_have_text("2")

    toms.close()
    expect(people(page)).to_have_text(["Ada"])
    expect(page.locator("#news")).to_have_text("Tom has left")


def test_somebody_with_two_tabs_is_there_once_until_both_are_closed(visitor: Arrive) -> None:
    ada, tom = visitor(), visitor()
    page = ada.enter("garden", "Ada")
    first, second = tom.enter("garden", "Tom"), tom.enter("garden")
    expect(people(page)).to_have_text(["Ada", "Tom"])

    first.close()
    say(second, "still here")
    expect(texts(page)).to_have_text(["still here"])
    expect(people(page)).to_have_text(["Ada", "Tom"])

    second.close()
    expect(people(page)).to_have_text(["Ada"])


def enter_out_of_time(visitor: Visitor, room: str, name: str | None = None) -> Page:
    """Enter a room with a page whose timers stand still, so that typing does not end by itself."""
    visitor.context.clock.install()
    page = visitor.enter(room, name)
    page.clock.pause_at(page.evaluate("() => Date.now() / 1000 + 1"))
    return page


def test_typing_is_seen_by_others_until_the_message_is_sent(visitor: Arrive) -> None:
    ada, tom = visitor().enter("garden", "Ada"), enter_out_of_time(visitor(), "garden", "Tom")
    expect(people(ada)).to_have_count(2)

    tom.get_by_label("Message to").press_sequentially("I am")
    expect(ada.locator("#typing")).to_have_text("Tom is typing…")
    expect(tom.locator("#typing")).to_have_text("")

    tom.keyboard.press("Enter")
    expect(texts(ada)).to_have_text(["I am"])
    expect(ada.locator("#typing")).to_have_text("")
    expect(people(ada)).to_have_text(["Ada", "Tom"])


def test_typing_ends_with_the_page_and_after_a_pause(visitor: Arrive) -> None:
    ada = visitor().enter("garden", "Ada")
    tom, eve = enter_out_of_time(visitor(), "garden", "Tom"), enter_out_of_time(visitor(), "garden", "Eve")
    tom.get_by_label("Message to").press_sequentially("I")
    expect(ada.locator("#typing")).to_have_text("Tom is typing…")
    eve.get_by_label("Message to").press_sequentially("Me")
    expect(ada.locator("#typing")).to_have_text("Tom, Eve are typing…")

    eve.close()
    expect(ada.locator("#typing")).to_have_text("Tom is typing…")
    tom.clock.run_for(4_000)
    expect(ada.locator("#typing")).to_have_text("")


# -- several rooms ----------------------------------------------------------------------------------------------------


def room_card(page: Page, name: str) -> Locator:
    return page.locator(".room-card", has_text=name)


def room_link(page: Page, name: str) -> Locator:
    return page.locator(".room-link", has_text=name)


def test_front_page_shows_rooms_and_their_people_live(visitor: Arrive) -> None:
    front = visitor().open("/")
    expect(front.locator("#no-rooms")).to_be_visible()

    ada, tom = visitor().enter("garden", "Ada"), visitor().enter("garden", "Tom")
    expect(room_card(front, "garden")).to_contain_text("2 here")
    expect(room_card(front, "garden").locator(".who")).to_have_text("Ada, Tom")
    say(ada, "hello")
    tom.close()
    expect(room_card(front, "garden")).to_contain_text("1 here")
    ada.close()

    expect(room_card(front, "garden").locator(".when")).to_have_text(re.compile("just now|ago"))
    expect(room_card(front, "garden").locator(".here")).to_be_hidden()


def test_unread_messages_are_counted_live_and_from_the_database(visitor: Arrive) -> None:
    ada, tom = visitor(), visitor().enter("garden", "Tom")
    page = ada.enter("garden", "Ada")
    say(tom, "one")
    expect(texts(page)).to_have_text(["one"])
    page.goto("about:blank")
    say(tom, "two")
    front = ada.open("/")
    expect(room_card(front, "garden").locator(".unread")).to_have_text("1 new")

    say(tom, "three")
    expect(room_card(front, "garden").locator(".unread")).to_have_text("2 new")

    room_card(front, "garden").click()
    expect(texts(front)).to_have_text(["one", "two", "three"])
    front.goto(front.url.replace("/chat/garden", ""))
    expect(room_card(front, "garden")).to_be_visible()
    expect(room_card(front, "garden").locator(".unread")).to_have_text("")


def test_page_has_several_rooms_open_over_one_socket(visitor: Arrive) -> None:
    ada, tom = visitor(), visitor().enter("kitchen", "Tom")
    sockets: list[str] = []
    ada.context.on("page", lambda page: page.on("websocket", lambda socket: sockets.append(socket.url)))
    page = ada.enter("garden", "Ada")
    sockets.clear()
    page.reload()
    connected(page)
    say(page, "in the garden")

    room_link(page, "kitchen").click()
    connected(page)
    expect(people(page)).to_have_text(["Ada", "Tom"])
    say(page, "in the kitchen")
    room_link(page, "garden").click()
    expect(texts(page)).to_have_text(["in the garden"])
    expect(page).to_have_title("#garden · Trio chat")
    say(tom, "one more")
    expect(room_link(page, "kitchen").locator(".unread")).to_have_text("1")
    expect(page).to_have_title("(1) #garden · Trio chat")

    page.go_back()
    expect(texts(page)).to_have_text(["in the kitchen", "one more"])
    expect(page.locator(".room-link .unread:not(:empty)")).to_have_count(0)
    assert page.url.endswith("/chat/kitchen/")

    tom.evaluate("() => { document.getElementById('text').value = 'seen at once' }")  # he is not seen to type
    tom.get_by_role("button", name="Send").click()
    expect(texts(page).last).to_have_text("seen at once")
    say(visitor().enter("garden", "Eve"), "not seen")
    expect(page).to_have_title("(1) #kitchen · Trio chat")
    assert len(sockets) == 1


# -- names ------------------------------------------------------------------------------------------------------------


def test_visitor_without_a_name_is_given_one_and_keeps_it(visitor: Arrive) -> None:
    somebody = visitor()
    page = somebody.open("/chat/garden/")
    connected(page)
    name = people(page).inner_text()
    assert re.fullmatch(r"[A-Z][a-z]+ [A-Z][a-z]+", name)

    page.reload()

    expect(people(page)).to_have_text([name])


def test_member_keeps_the_username_after_signing_in_again(visitor: Arrive) -> None:
    member, watcher = visitor(), visitor().enter("garden", "Ada")
    page = member.sign_up("florence")
    page.close()
    page = member.enter("garden")
    expect(people(watcher)).to_have_text(["Ada", "florence"])
    say(page, "hello")
    expect(watcher.locator("#log .byline .name")).to_have_text(["florence"])
    expect(watcher.locator("#log .byline .tick")).to_have_count(1)

    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="Sign in").wait_for()
    expect(people(watcher)).to_have_text(["Ada"])
    page = member.open("/chat/garden/")
    page.get_by_role("link", name="Sign in").click()
    page.get_by_label("Username").fill("florence")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(re.compile("/chat/garden/$"))

    expect(people(watcher)).to_have_text(["Ada", "florence"])
    expect(page.locator("#log .message.mine")).to_have_count(1)


def test_visitor_cannot_take_the_name_of_a_member(visitor: Arrive) -> None:
    visitor().sign_up("florence")
    page = visitor().open("/")
    page.get_by_role("combobox", name="Room").fill("garden")
    page.get_by_role("textbox", name="Your name").fill("Florence")
    page.get_by_role("button", name="Enter").click()

    expect(page.get_by_role("alert")).to_contain_text("the name of a member")


def test_room_that_cannot_be_is_explained_and_the_nearest_offered(visitor: Arrive) -> None:
    page = visitor().open("/chat/Board games!/")

    expect(page.get_by_role("heading", name="No room can be called that.")).to_be_visible()
    page.get_by_role("link", name="Go to #board-games").click()
    connected(page)


# -- the server ends, and comes back ----------------------------------------------------------------------------------


def test_pages_reconnect_after_a_restart_without_duplicates(visitor: Arrive, server: ChatServer) -> None:
    ada, tom = visitor().enter("garden", "Ada"), visitor().enter("garden", "Tom")
    say(ada, "before")
    expect(texts(tom)).to_have_text(["before"])

    server.kill()
    for page in ada, tom:
        expect(page.get_by_text("Reconnecting…")).to_be_visible()
    server.start()

    for page in ada, tom:
        connected(page)
        # The layer's memory was that of the killed process.
        expect(page.locator("#resumed")).to_have_text("Resumed from the database.")
        expect(texts(page)).to_have_text(["before"])
    expect(people(ada)).to_have_text(["Ada", "Tom"])
    expect(people(tom)).to_have_text(["Tom", "Ada"])
    say(tom, "after")
    expect(texts(ada)).to_have_text(["before", "after"])


def test_news_of_a_room_that_was_empty_are_unread_after_a_restart(visitor: Arrive, server: ChatServer) -> None:
    """The server, which has seen no message there, does not know that the room has been read."""
    visitor().enter("kitchen")
    reader = visitor().enter("garden")
    room_link(reader, "kitchen").click()
    connected(reader)
    server.kill()
    expect(reader.get_by_text("Reconnecting…")).to_be_visible()
    server.start()
    connected(reader)
    say(visitor().enter("garden", "Tom"), "news")
    expect(room_link(reader, "garden").locator(".unread")).to_have_text("1")


def test_messages_typed_offline_are_sent_after_the_restart(visitor: Arrive, server: ChatServer) -> None:
    ada, tom = visitor().enter("garden", "Ada"), visitor().enter("garden", "Tom")
    say(ada, "before")
    server.kill()
    expect(ada.get_by_text("Reconnecting…")).to_be_visible()

    for text in "one", "two":
        ada.get_by_label("Message to").fill(text)
        ada.keyboard.press("Enter")
    expect(waiting(ada)).to_have_text(["one", "two"])
    expect(ada.get_by_text("waiting to be sent")).to_have_count(2)
    server.start()

    for page in ada, tom:
        expect(texts(page)).to_have_text(["before", "one", "two"])
        expect(waiting(page)).to_have_count(0)


def test_messages_typed_offline_outlive_a_reload(visitor: Arrive) -> None:
    ada, tom = visitor(), visitor().enter("garden", "Tom")
    connection = Connection(ada)
    connection.hides = ""
    page = ada.open("/chat/garden/")
    page.get_by_label("Message to").fill("from before the reload")
    page.keyboard.press("Enter")
    expect(waiting(page)).to_have_text(["from before the reload"])
    assert connection.sent == []  # it is not joined

    connection.hides = None
    page.reload()

    for one in page, tom:
        expect(texts(one)).to_have_text(["from before the reload"])
    expect(waiting(page)).to_have_count(0)


def test_message_with_server_side_blanks_is_shown_once(visitor: Arrive, server: ChatServer) -> None:
    ada = visitor().enter("garden", "Ada")
    ada.get_by_label("Message to").fill("once\u0085")
    ada.keyboard.press("Enter")
    expect(texts(ada)).to_have_text(["once"])

    server.stop()
    expect(ada.get_by_text("Reconnecting…")).to_be_visible()
    server.start()
    connected(ada)
    say(ada, "twice")
    expect(texts(ada)).to_have_text(["once", "twice"])
    expect(waiting(ada)).to_have_count(0)


def test_pending_message_arrives_once_after_a_restart(visitor: Arrive, server: ChatServer) -> None:
    ada, tom = visitor().enter("garden", "Ada"), visitor().enter("garden", "Tom")
    say(ada, "before")
    server.signal(signal.SIGSTOP)  # it takes nothing in any more, which the page cannot know
    ada.get_by_label("Message to").fill("into the void")
    ada.keyboard.press("Enter")
    expect(ada.get_by_label("Message to")).to_have_value("")
    server.kill()
    server.start()

    for page in ada, tom:
        expect(texts(page)).to_have_text(["before", "into the void"])
        expect(waiting(page)).to_have_count(0)


class Connection:
    """The WebSockets of a visitor's pages, which a test can cut.

    Attributes:
        sent: the messages with texts that the pages have sent.
        hides: the messages of the server that contain this get lost; "" is all of them.
    """

    def __init__(self, visitor: Visitor) -> None:
        self.sent: list[str] = []
        self.hides: str | None = None
        self._routes: list[WebSocketRoute] = []
        visitor.context.route_web_socket("**/socket/websocket**", self._between)

    def _between(self, page: WebSocketRoute) -> None:
        server = page.connect_to_server()
        self._routes.append(page)

        def from_page(message: str | bytes) -> None:
            if '"message.new"' in str(message):
                self.sent.append(str(message))
            server.send(message)

        def from_server(message: str | bytes) -> None:
            if self.hides is None or self.hides not in str(message):
                page.send(message)

        page.on_message(from_page)
        server.on_message(from_server)

    def cut(self) -> None:
        """The connection is lost, and the next one works."""
        self.hides = None
        self._routes[-1].close(code=3999)


def test_message_without_an_answer_is_sent_again_and_stored_once(visitor: Arrive) -> None:
    ada, tom, reader = visitor(), visitor().enter("garden", "Tom"), visitor().enter("garden")
    visitor().enter("kitchen")
    room_link(reader, "kitchen").click()
    connection = Connection(ada)
    page = ada.enter("garden", "Ada")

    connection.hides = ""
    page.get_by_label("Message to").fill("once")
    page.keyboard.press("Enter")
    expect(texts(tom)).to_have_text(["once"])
    expect(waiting(page)).to_have_text(["once"])
    connection.cut()

    expect(texts(page)).to_have_text(["once"])
    say(page, "twice")
    expect(waiting(page)).to_have_count(0)
    expect(texts(tom)).to_have_text(["once", "twice"])
    expect(room_link(reader, "garden").locator(".unread")).to_have_text("2")
    first, second, _ = (json.loads(message)[4] for message in connection.sent)
    assert first == second


def test_what_was_missed_during_a_stop_is_shown_after_it(visitor: Arrive, server: ChatServer) -> None:
    ada, tom = visitor(), visitor().enter("garden", "Tom")
    page = ada.enter("garden", "Ada")
    say(page, "before")
    ada.context.set_offline(True)
    assert server.stop() == 0
    server.start()
    connected(tom)
    say(tom, "while you were away")
    ada.context.set_offline(False)

    expect(texts(page)).to_have_text(["before", "while you were away"])
    expect(page.locator("#resumed")).to_have_text("Resumed from the database.")


def test_what_was_missed_in_a_short_outage_comes_by_position(visitor: Arrive) -> None:
    ada, tom = visitor(), visitor().enter("garden", "Tom")
    connection = Connection(ada)
    page = ada.enter("garden", "Ada")
    say(page, "before")

    connection.hides = ""
    say(tom, "while you were away")
    connection.cut()

    expect(page.locator("#resumed")).to_have_text("Resumed by position.")
    expect(texts(page)).to_have_text(["before", "while you were away"])


def test_page_that_was_cut_before_it_had_the_history_gets_it(visitor: Arrive) -> None:
    ada, tom = visitor(), visitor().enter("garden", "Tom")
    say(tom, "before")
    connection = Connection(ada)
    connection.hides = '"messages"'
    page = ada.open("/chat/garden/")
    expect(people(page)).to_have_count(2)
    expect(texts(page)).to_have_count(0)
    connection.cut()

    expect(texts(page)).to_have_text(["before"])
    expect(page.locator("#resumed")).to_have_text("Resumed by position.")


def test_after_a_long_absence_no_message_stands_beside_a_hole(visitor: Arrive, server: ChatServer) -> None:
    page = visitor().enter("garden", "Ada")
    say(page, "before")
    server.kill()
    row = "INSERT INTO chat_message (room, author, author_name, text, sent_at) VALUES ('garden', 'v', 'Tom', ?, ?)"
    with sqlite3.connect(server.database) as database:
        database.executemany(row, [(f"number {number}", "2026-11-29 12:00:00") for number in range(51)])
    database.close()
    server.start()

    expect(texts(page)).to_have_text([f"number {number}" for number in range(1, 51)])


def test_button_restarts_the_server_and_nothing_is_missing(visitor: Arrive, server: ChatServer) -> None:
    ada, tom = visitor().enter("garden", "Ada"), visitor().enter("garden", "Tom")
    say(ada, "before")

    ada.get_by_role("button", name="Restart the server").dblclick()
    expect(ada.get_by_text("Reconnecting…")).to_be_visible()
    ada.get_by_label("Message to").fill("meanwhile")
    ada.keyboard.press("Enter")

    for page in ada, tom:
        expect(page.locator("#resumed")).to_have_text("Resumed from the database.")
        expect(texts(page)).to_have_text(["before", "meanwhile"])
    assert server.stop() == 0


# -- looks ------------------------------------------------------------------------------------------------------------

PHONE = {"width": 390, "height": 844}


def test_nothing_is_wider_than_a_phone(visitor: Arrive) -> None:
    somebody = visitor(viewport=PHONE, has_touch=True)
    page = somebody.enter("g" * 50, "A" * 30)
    say(page, "w" * 300)
    for _ in range(4):
        visitor().enter("g" * 50)
    expect(people(page)).to_have_count(5)

    others = [somebody.open(path) for path in ("/", "/sign-in/", "/sign-up/", f"/chat/{'no room ' * 20}/")]

    for one in page, *others:
        assert one.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"], one.url


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_colours_follow_the_scheme_that_the_reader_prefers(visitor: Arrive, scheme: str, is_dark: bool) -> None:
    page = visitor(color_scheme=scheme).enter("garden")
    say(page, "hello")

    for selector in "body", ".talk":
        assert (lightness(page, selector, "backgroundColor") < 0.3) is is_dark
        assert (lightness(page, selector, "color") > 0.7) is is_dark


def lightness(page: Page, selector: str, name: str) -> float:
    """The mean of a computed colour's channels, from 0 to 1."""
    colour = page.locator(selector).evaluate("(element, name) => getComputedStyle(element)[name]", name)
    channels = [int(channel) for channel in re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour).groups()]
    return sum(channels) / 3 / 255


#: By the names of the files.
SCREENS = {
    "chat.png": {"color_scheme": "light"},
    "chat-dark.png": {"color_scheme": "dark"},
    "chat-phone.png": {"color_scheme": "light", "viewport": PHONE, "has_touch": True, "device_scale_factor": 2},
    "chat-phone-dark.png": {"color_scheme": "dark", "viewport": PHONE, "has_touch": True, "device_scale_factor": 2},
}


def test_screenshots_of_the_documentation_can_be_taken(visitor: Arrive, tmp_path: Path) -> None:
    """With ``UPDATE_SCREENSHOTS=1`` they go where the documentation has them."""
    folder = ROOT / "docs" / "images" if os.environ.get("UPDATE_SCREENSHOTS") else tmp_path
    member, reader = visitor(), visitor(viewport={"width": 1200, "height": 800})
    member.sign_up("mira").close()
    ada = reader.enter("kitchen", "Ada Lindqvist")
    say(ada, "Who has the big pot?")
    mira, tom, kim = (
        enter_out_of_time(member, "garden"),
        visitor().enter("garden", "Tom"),
        visitor().enter("kitchen", "Kim"),
    )
    say(visitor().enter("lobby", "Noor"), "Welcome, everybody.")
    room_link(ada, "garden").click()
    connected(ada)
    say(ada, "Morning! Did the seedlings make it through the night?")
    say(mira, "All but two of the tomatoes.")
    say(
        mira,
        "The beans look splendid, by the way. I moved them to the south wall, where it is warmest, "
        "and they have put on a hand's width since Tuesday.",
    )
    say(tom, "I can bring the spare tomatoes over after lunch, I have eight too many.")
    say(ada, "Yes please!\nAnd the long ladder, if it fits in the car.")
    say(tom, "It does if somebody holds the other end out of the window.")
    say(kim, "I have it.")
    say(kim, "It is on the stove.")
    mira.get_by_label("Message to").press_sequentially("Mind the")
    cookies = reader.context.cookies()
    expect(texts(ada)).to_have_count(6)
    ada.close()

    for name, look in SCREENS.items():
        again = visitor(**look)
        again.context.add_cookies(cookies)
        page = again.open("/chat/garden/")
        connected(page)
        expect(room_link(page, "kitchen").locator(".unread")).to_have_text("2")
        expect(people(page)).to_have_text(["Ada Lindqvist", "mira", "Tom"])
        expect(page.locator("#typing")).to_have_text("mira is typing…")
        page.screenshot(path=folder / name)
        assert (folder / name).stat().st_size > 10_000
        page.close()


class Film:
    """An animated picture of a page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._shots: list[bytes] = []
        self._milliseconds: list[int] = []

    def show(self, seconds: float) -> None:
        """Show the page as it is for so long."""
        self._shots.append(self._page.screenshot(animations="disabled"))
        self._milliseconds.append(int(seconds * 1000))

    def save(self, path: Path) -> None:
        from PIL import Image

        first, *others = [Image.open(io.BytesIO(shot)).convert("RGB") for shot in self._shots]
        first.save(path, save_all=True, append_images=others, duration=self._milliseconds, loop=0, quality=80, method=4)


@pytest.mark.parametrize(("scheme", "name"), [("light", "chat-restart.webp"), ("dark", "chat-restart-dark.webp")])
def test_film_of_a_restart_can_be_taken(
    visitor: Arrive, server: ChatServer, tmp_path: Path, scheme: str, name: str
) -> None:
    """With ``UPDATE_SCREENSHOTS=1`` it goes where the documentation has it."""
    folder = ROOT / "docs" / "images" if os.environ.get("UPDATE_SCREENSHOTS") else tmp_path
    ada = visitor(color_scheme=scheme, viewport={"width": 960, "height": 560}).enter("garden", "Ada")
    tom = visitor().enter("garden", "Tom")
    film = Film(ada)
    film.show(1)
    say(tom, "Is the new version out yet?")
    expect(texts(ada)).to_have_count(1)
    film.show(1.5)
    say(ada, "I restart the server now.")
    film.show(1.5)
    server.kill()
    expect(ada.get_by_text("Reconnecting…")).to_be_visible()
    film.show(1.5)
    for text in "You can write on meanwhile:", "it is sent when the server is back.":
        ada.get_by_label("Message to").fill(text)
        film.show(1)
        ada.keyboard.press("Enter")
        expect(waiting(ada).last).to_have_text(text)
        film.show(1.5)
    server.start()
    expect(ada.locator("#resumed")).to_have_text("Resumed from the database.")
    expect(waiting(ada)).to_have_count(0)
    film.show(2)
    say(tom, "I have got everything.")
    expect(texts(ada)).to_have_count(5)
    film.show(3)
    film.save(folder / name)
    assert (folder / name).stat().st_size > 10_000


# -- serve.py ---------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_it_cleanly_while_a_page_is_open(visitor: Arrive, server: ChatServer) -> None:
    page = visitor().enter("garden")
    say(page, "hello")

    assert server.stop() == 0
    assert "Traceback" not in server.output
    assert f"The chat is on {server.url}/" in server.output


def test_taken_port_is_explained_in_a_sentence(server: ChatServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with server.command(str(port)) as process:
            output = process.communicate(timeout=PATIENCE)[0]

    assert process.returncode == 1
    assert output == (
        f"Cannot serve on port {port}: Address already in use. "
        f"Give another port as the argument, such as {port % 65535 + 1}.\n"
    )


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1"])
def test_what_is_no_port_is_refused(server: ChatServer, port: str) -> None:
    with server.command(port) as process:
        output = process.communicate(timeout=PATIENCE)[0]

    assert process.returncode == 2
    assert "Traceback" not in output
