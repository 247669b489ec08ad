"""The page in the admin, served in this process over both layers: its content, its acts, the permissions for them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client, override_settings
from django.urls import clear_url_caches

from trio_channels import _orders
from trio_channels.asgi import get_asgi_application
from trio_channels.db import database_sync_to_async
from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.inspector.acting import Act
from trio_channels.layers.base import ChannelLayer
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.testing import HttpCommunicator
from trio_channels.worker import Worker

from ..conftest import _sqlite as sqlite
from ..conftest import default_database
from .conftest import Served
from .settings import SITE
from .test_overview import client

PAGE = "/admin/trio_channels_inspector/connection/"


class Staff:
    """A member of the staff, logged in; asks the site in the test's own Trio run."""

    def __init__(self, *permissions: str) -> None:
        self.user = User.objects.create_user("grace", is_staff=True)
        self.user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        browser = Client()
        browser.force_login(self.user)
        self.cookies = {"sessionid": browser.cookies["sessionid"].value, "csrftoken": "c" * 32}

    async def ask(self, path: str = PAGE, form: dict[str, Any] | None = None, *, csrf: bool = True) -> tuple[int, str]:
        """The status and the text of a page."""
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = [(b"host", b"testserver"), (b"cookie", cookies.encode())]
        body = urlencode((form or {}) | ({"csrfmiddlewaretoken": "c" * 32} if csrf else {})).encode()
        if form is not None:
            headers += [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", b"%d" % len(body))]
        method = "GET" if form is None else "POST"
        async with HttpCommunicator(get_asgi_application(), method, path, body if form else b"", headers) as http:
            answer = await http.get_response()
        for name, value in answer["headers"]:
            if name.lower() == b"set-cookie" and value.startswith(b"messages="):
                self.cookies["messages"] = value.decode().partition(";")[0].removeprefix("messages=")
        return answer["status"], answer["body"].decode()

    async def act(self, kind: str, target: str, **details: Any) -> tuple[int, str]:
        """A confirmed act."""
        return await self.ask(f"{PAGE}act/", {"kind": kind, "target": target, "confirmed": "yes", **details})


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> Path:
    """A database with the tables of the admin."""
    path = tmp_path_factory.mktemp("inspector") / "migrated.sqlite3"
    with pytest.MonkeyPatch.context() as patch, django_db_blocker.unblock(), default_database(sqlite(path)):
        patch.setattr(_orders, "functions", {})  # the app's start changes them
        patch.setattr(_orders, "introduction", None)
        with override_settings(**SITE):
            call_command("migrate", verbosity=0)
    return path


@pytest.fixture
def site(template: Path, tmp_path: Path, django_db_blocker: Any) -> Iterator[None]:
    """The admin is installed."""
    path = tmp_path / "default.sqlite3"
    shutil.copy(template, path)
    with django_db_blocker.unblock(), override_settings(**SITE), default_database(sqlite(path)):
        clear_url_caches()
        yield
    clear_url_caches()


@pytest.fixture
def viewer(site: None) -> Staff:
    return Staff("view_connection")


@pytest.fixture
def actor(site: None) -> Staff:
    return Staff("view_connection", "act_on_connection")


@database_sync_to_async
def log_entries() -> list[tuple[str, str]]:
    from django.contrib.admin.models import LogEntry

    return list(LogEntry.objects.values_list("user__username", "change_message"))


# -- permissions -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[(), ("act_on_connection",)])
def stranger(request: pytest.FixtureRequest, site: None) -> Staff:
    return Staff(*request.param)


async def test_staff_without_the_permission_sees_nothing(stranger: Staff) -> None:
    assert (await stranger.ask())[0] == 403
    assert (await stranger.ask(f"{PAGE}act/", {"kind": "close_user", "target": "1"}))[0] == 403


async def test_others_are_sent_to_the_login(viewer: Staff) -> None:
    viewer.cookies.clear()
    assert (await viewer.ask())[0] == 302


async def test_viewer_sees_and_may_not_act(viewer: Staff, served: Served) -> None:
    async with served(), client(user=viewer.user) as ws:
        await ws.connect()
        status, page = await viewer.ask()
        assert status == 200
        assert "/room/?token=***&amp;page=2" in page
        assert "secret" not in page
        assert "grace" in page
        assert '<a href="?group=room' in page
        assert "<button type=" not in page.partition("</form>")[2].partition("<footer")[0]
        assert (await viewer.act("close_user", str(viewer.user.pk)))[0] == 403
        assert await ws.receive_nothing()
    assert await log_entries() == []


async def test_act_needs_the_csrf_token_and_post(actor: Staff, served: Served) -> None:
    async with served():
        form = {"kind": "close_user", "target": "1", "confirmed": "yes"}
        assert (await actor.ask(f"{PAGE}act/", form, csrf=False))[0] == 403
        assert (await actor.ask(f"{PAGE}act/?{urlencode(form)}"))[0] == 405
    assert await log_entries() == []


async def test_other_pages_of_the_model_do_not_exist(actor: Staff) -> None:
    for page in ("add/", "1/change/", "1/delete/", "1/history/"):
        assert (await actor.ask(PAGE + page))[0] in (302, 404)


async def test_front_page_of_the_admin_links_to_it(viewer: Staff) -> None:
    status, page = await viewer.ask("/admin/")
    assert status == 200
    assert f'href="{PAGE}"' in page


# -- the content of the page -------------------------------------------------------------------------------------------


async def test_members_of_a_group_and_found_connections(actor: Staff, served: Served) -> None:
    async with served(), client("/garden/") as one, client("/kitchen/") as other:
        await one.connect()
        await other.connect()
        page = (await actor.ask(f"{PAGE}?group=room"))[1]
        assert "Members of room (2)" in page
        assert "Send to the group" in page
        page = (await actor.ask(f"{PAGE}?find=garden"))[1]
        assert "Connections (1)" in page
        assert "/kitchen/" not in page
        page = (await actor.ask(f"{PAGE}?group=no%20group&find=%22%3E%3Cscript%3E"))[1]
        assert "<script>" not in page.partition('class="find"')[2].partition("</form>")[0]
        assert "Connections (0)" in page


async def test_page_says_that_the_layer_is_in_memory(viewer: Staff, served: Served) -> None:
    async with served() as layer:
        page = (await viewer.ask())[1]
    assert ("in-memory layer" in page) is not isinstance(layer, RedisStreamsChannelLayer)


# -- acts --------------------------------------------------------------------------------------------------------------


async def test_act_is_confirmed_first(actor: Staff, served: Served) -> None:
    async with served(), client(user=actor.user) as ws:
        await ws.connect()
        form = {"kind": "close_user", "target": actor.user.pk, "username": "<b>grace</b>", "group": "room"}
        status, page = await actor.ask(f"{PAGE}act/", form)
        assert status == 200
        assert "Every connection of the user <b>&lt;b&gt;grace&lt;/b&gt;</b> is closed" in page
        assert 'name="confirmed"' in page
        assert f"{PAGE}?group=room" in page
        assert "errorlist" not in page
        assert await ws.receive_nothing()


async def test_user_is_closed_and_the_act_logged(
    actor: Staff, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_channels.inspector")
    async with served(), client(user=actor.user) as ws, client() as other:
        await ws.connect()
        await other.connect()
        assert (await actor.act("close_user", str(actor.user.pk), code="4003", reason="banned"))[0] == 302
        message = await ws.receive_output()
        assert (message["type"], message["code"], message["reason"]) == ("websocket.close", 4003, "banned")
        assert await other.receive_nothing()
    done = f"close all connections of the user '{actor.user.pk}' with 4003"
    assert [record.message for record in caplog.records] == [f"staff: grace ({actor.user.pk}): {done}"]
    assert await log_entries() == [("grace", done)]


async def test_connection_is_closed(actor: Staff, served: Served) -> None:
    async with served(), client() as ws:
        await ws.connect()
        await ws.send_to(text_data="name")
        assert (await actor.act("close_channel", await ws.receive_from()))[0] == 302
        assert (await ws.receive_output())["code"] == 4001


@pytest.mark.parametrize("kind", ["send_group", "send_channel"])
async def test_message_is_sent(kind: str, actor: Staff, served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_channels.inspector")
    async with served() as layer, layer.subscribe("news") as events:
        target = await layer.new_channel() if kind == "send_channel" else "news"
        message = '{"type": "news.item", "text": "private"}'
        assert (await actor.act(kind, target, message=message, layer="default"))[0] == 302
        got = await (layer.receive(target) if kind == "send_channel" else anext(events))
        assert got == {"type": "news.item", "text": "private"}
    assert "send a message of type 'news.item' to the" in caplog.text
    assert "private" not in caplog.text


@pytest.mark.parametrize("chosen", [True, False])
async def test_dead_letters_are_retried(chosen: bool, actor: Staff, served: Served) -> None:
    seen: list[int] = []

    async def work(scope: Any, receive: Any, send: Any) -> None:
        event = await receive()
        seen.append(event["n"])
        if len(seen) <= 2:
            raise RuntimeError("not yet")

    async with served() as layer, trio.open_nursery() as nursery:
        worker = Worker(work, ["jobs"], layer, max_deliveries=1)
        nursery.start_soon(worker.run)
        for n in (1, 2):
            await layer.send("jobs", {"type": "job.do", "n": n})
        await until_dead(layer, 2)
        page = (await actor.ask())[1]
        assert "job.do, 1 delivery: RuntimeError: not yet" in page
        assert "Retry all" in page
        letters = await layer.work_queue("jobs").dead_letters()
        ids = " ".join(letter.id for letter in letters[:1]) if chosen else ""
        assert (await actor.act("retry", "jobs", ids=ids))[0] == 302
        await until_dead(layer, 1 if chosen else 0)
        page = (await actor.ask())[1]
        assert ("1 dead letter was sent again" if chosen else "2 dead letters were sent again") in page
        worker.drain()
    assert sorted(seen[2:]) == ([letters[0].message["n"]] if chosen and letters[0].message else [1, 2])


async def until_dead(layer: ChannelLayer, number: int) -> None:
    while (await layer.work_queue("jobs").size()).dead != number or (await layer.work_queue("jobs").size()).backlog:
        await trio.lowlevel.checkpoint()


async def test_wrong_act_is_refused(actor: Staff, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Act, "perform", None)  # nothing may call it
    for kind, error in (("explode", "There is no such act"), ("send_group", "Expected JSON")):
        status, page = await actor.act(kind, "room", message="text")
        assert status == 200
        assert error in page
    assert await log_entries() == []


async def test_failed_act_is_told_and_logged(
    actor: Staff, served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_act: Act) -> str:
        raise ChannelLayerUnavailable("Redis is away")

    async with served():
        monkeypatch.setattr(Act, "perform", fail)
        assert (await actor.act("close_user", "1"))[0] == 302
        assert "This has failed: Redis is away" in (await actor.ask())[1]
    assert "close all connections of the user '1' with 4001: failed: Redis is away" in caplog.text
    assert await log_entries() == []


# -- the model ---------------------------------------------------------------------------------------------------------


def test_model_has_no_table_and_no_rows(site: None, capsys: pytest.CaptureFixture[str]) -> None:
    model = apps.get_model("trio_channels_inspector", "Connection")
    assert list(model.objects.all()) == []
    assert str(model(name="room")) == "room"
    call_command("dumpdata", "trio_channels_inspector", "--all")
    assert capsys.readouterr().out.strip().endswith("[]")
    call_command("makemigrations", "trio_channels_inspector", "--check", "--dry-run", verbosity=0)
