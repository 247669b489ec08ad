"""Live servers in the test's process."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from django.contrib.auth.models import User
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import override_settings
from django.urls import path
from trio_websocket import open_websocket_url

from trio_channels._http.handler import DjangoHandler
from trio_channels.db import database_sync_to_async
from trio_channels.exceptions import ConfigurationError
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.layers import get_channel_layer
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.sync import async_to_sync
from trio_channels.testing import ChannelsLiveServerTestCase, LiveServer
from trio_channels.testing.live import ServerThread, live_server

PATIENCE = 60


def people(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"people": list(User.objects.values_list("username", flat=True))})


urlpatterns = [path("people/", people)]


class News(AsyncWebsocketConsumer):
    groups = ("news",)

    async def connect(self) -> None:
        await self.accept()
        await self.send(text_data=str(await database_sync_to_async(User.objects.count)()))

    async def news(self, event: Any) -> None:
        await self.send(text_data=event["text"])


async def application(scope: Any, receive: Any, send: Any) -> None:
    router = ProtocolTypeRouter({"http": DjangoHandler(), "websocket": News.as_asgi()})
    await router(scope, receive, send)


async def refuses_to_start(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the cache is cold"})


async def crashes_when_asked(scope: Any, receive: Any, send: Any) -> None:
    """Its lifespan crashes at the first request."""
    if scope["type"] != "lifespan":
        scope["state"]["asked"].set()
        return
    asked = scope["state"]["asked"] = trio.Event()
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await asked.wait()
    raise ValueError("the feed has ended")


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        return bytes(response.read())


def listen(url: str) -> list[str]:
    """The first message of a WebSocket, and one that came through the channel layer from this thread."""

    async def main() -> list[str]:
        async with open_websocket_url(url) as client:
            first = await client.get_message()
            layer = get_channel_layer()
            assert layer is not None
            await trio.to_thread.run_sync(
                lambda: async_to_sync(layer.group_send)("news", {"type": "news", "text": "from the test"})
            )
            return [first, await client.get_message()]

    return trio.run(main)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "site.css").write_text("body {}")
    with override_settings(
        ASGI_APPLICATION=f"{__name__}.application",
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.staticfiles"],
        STATIC_URL="static/",
        STATICFILES_DIRS=[str(tmp_path)],
    ):
        yield


def test_fixture_serves_pages_websockets_and_static_files(site: None, trio_live_server: LiveServer) -> None:
    User.objects.create_user("ada")
    assert json.loads(get(trio_live_server + "/people/")) == {"people": ["ada"]}
    assert get(f"{trio_live_server}/static/site.css") == b"body {}"
    assert listen(trio_live_server.ws_url) == ["1", "from the test"]
    assert repr(trio_live_server) == f"<LiveServer at {trio_live_server.url}>"


def test_its_address_is_free_again_after_it(site: None) -> None:
    with live_server() as server:
        port = int(server.url.rpartition(":")[2])
    with live_server(port=port) as again:
        assert again.url == server.url


@pytest.mark.parametrize(
    ("path", "complaint"),
    [("no.such.application", "cannot be imported"), (f"{__name__}.refuses_to_start", "the cache is cold")],
)
def test_application_that_does_not_start_is_said(path: str, complaint: str) -> None:
    with override_settings(ASGI_APPLICATION=path), pytest.raises(ConfigurationError, match=complaint), live_server():
        pytest.fail("it has started")


@pytest.mark.usefixtures("site")
class TestCase(ChannelsLiveServerTestCase):
    """Django's kind of test, here under pytest."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.enterClassContext(override_settings(ASGI_APPLICATION=f"{__name__}.application", ROOT_URLCONF=__name__))
        super().setUpClass()

    def test_it_serves_what_the_test_has_stored(self) -> None:
        User.objects.create_user("ada")
        assert json.loads(get(self.live_server_url + "/people/")) == {"people": ["ada"]}
        assert listen(self.live_server_ws_url) == ["1", "from the test"]

    def test_each_test_finds_the_tables_empty(self) -> None:
        assert json.loads(get(self.live_server_url + "/people/")) == {"people": []}


class WithoutStaticFiles(ChannelsLiveServerTestCase):
    """Only for its one test below."""

    serve_static = False


def test_static_files_can_be_left_out(site: None) -> None:
    thread = WithoutStaticFiles._create_server_thread({})
    assert thread.static_handler(application) is application


def test_database_in_memory_is_shared_with_the_server(site: None, db: None) -> None:
    # In the test's transaction, which no other connection sees: as if it were in memory.
    from trio_channels.testing.live import with_static_files

    User.objects.create_user("ada")
    thread = ServerThread("localhost", with_static_files, {"default": connections["default"]})
    thread.start()
    try:
        assert thread.is_ready.wait(PATIENCE)
        assert thread.error is None
        assert json.loads(get(f"http://localhost:{thread.port}/people/")) == {"people": ["ada"]}
    finally:
        thread.terminate()
    assert User.objects.count() == 1


terminated = threading.Event()


async def starts_at_its_end(scope: Any, receive: Any, send: Any) -> None:
    await trio.to_thread.run_sync(terminated.wait)


def test_start_that_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    terminate = ServerThread.terminate

    def noted(thread: ServerThread) -> None:
        terminated.set()
        terminate(thread)

    monkeypatch.setattr(ServerThread, "terminate", noted)
    monkeypatch.setattr("trio_channels.testing.live.START_TIMEOUT", 0.01)
    late = override_settings(ASGI_APPLICATION=f"{__name__}.starts_at_its_end")
    with late, pytest.raises(ConfigurationError, match=r"did not start within 0\.01 seconds"), live_server():
        pytest.fail("it has started")


def ask_until_it_is_gone() -> None:
    with live_server() as server:
        while True:
            try:
                get(server.url)
            except urllib.error.HTTPError:
                continue  # the application answers nothing
            except OSError:
                return


def test_crash_while_it_serves_is_an_error(site: None) -> None:
    crash = "the lifespan of the application failed: ValueError: the feed has ended"
    failure = f"the application failed while it was served: {crash}"
    application = override_settings(ASGI_APPLICATION=f"{__name__}.crashes_when_asked")
    with application, pytest.raises(ConfigurationError, match=failure):
        ask_until_it_is_gone()
