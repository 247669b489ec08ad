"""Mount points: which path leads to a page and to a WebSocket, and the addresses that ``reverse()`` gives there.

The table is that of docs/reference/routing.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import override_settings
from django.urls import include, path, reverse
from trio_websocket import ConnectionRejected

from trio_channels import server as our_server
from trio_channels.asgi import get_asgi_application
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter, URLRouter

from .conftest import Serve, Server, config_for_tests


def page(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"reverse": reverse("page"), "path": request.path, "below": request.path_info})


async def async_page(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"reverse": reverse("page"), "path": request.path, "below": request.path_info})


urlpatterns = [path("page/", page, name="page"), path("async/", async_page)]


class Async(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept()
        await self.send(reverse("page"))


class Sync(WebsocketConsumer):
    def connect(self) -> None:
        self.accept()
        self.send(reverse("page"))


WEBSOCKETS: list[Any] = [path("async/", Async.as_asgi()), path("sync/", Sync.as_asgi())]


def site() -> ProtocolTypeRouter:
    router = URLRouter(
        [
            *WEBSOCKETS,
            path("nested/", URLRouter([path("again/", URLRouter(WEBSOCKETS))])),
            path("in/", include(WEBSOCKETS)),
        ]
    )
    return ProtocolTypeRouter({"http": get_asgi_application(), "websocket": router})


PAGES = ("/page/", "/async/")
SOCKETS = ("/async/", "/sync/", "/nested/again/async/", "/nested/again/sync/", "/in/async/", "/in/sync/")

Start = Callable[..., Awaitable[Server]]


@asynccontextmanager
async def our_serve() -> AsyncIterator[Start]:
    async with trio.open_nursery() as nursery:
        stop = trio.Event()

        async def start(application: Any, **options: Any) -> Server:
            async def run(task_status: trio.TaskStatus[Any]) -> None:
                config = config_for_tests(**options)
                await our_server.serve(application, config, shutdown_trigger=stop.wait, task_status=task_status)

            (bind,) = await nursery.start(run)
            return Server(int(bind.rsplit(":", 1)[1]))

        yield start
        stop.set()


@pytest.fixture(params=["trio-channels", "hypercorn"])
async def start(request: pytest.FixtureRequest, serve: Serve) -> AsyncIterator[Start]:
    """Start a server: ours, or hypercorn as it is."""
    if request.param == "hypercorn":
        yield serve
        return
    async with our_serve() as ours:
        yield ours


async def status_of_websocket(server: Server, where: str) -> tuple[int, str]:
    try:
        async with server.websocket(where) as client:
            return 101, await client.get_message()
    except ConnectionRejected as rejected:
        return rejected.status_code, ""


@pytest.mark.parametrize(
    ("forced", "root", "requested", "pages", "sockets", "reverses"),
    [
        # no mount point
        (None, "", "", 200, 101, ""),
        (None, "", "/app", 404, 403, ""),
        ("/", "", "", 200, 101, ""),
        # FORCE_SCRIPT_NAME
        ("/app", "", "/app", 200, 101, "/app"),
        ("/app", "", "", 200, 403, "/app"),
        ("/app", "", "/apple", 404, 403, ""),
        ("/app", "", "/ap", 404, 403, ""),
        ("/app", "", "/app/app", 404, 403, ""),
        ("/app", "", "/%61pp", 200, 101, "/app"),
        ("/app/", "", "/app", 200, 101, "/app"),
        ("/a/b", "", "/a/b", 200, 101, "/a/b"),
        ("/a/b", "", "/b", 404, 403, ""),
        ("/é", "", "/%C3%A9", 200, 101, "/%C3%A9"),
        # root_path
        (None, "/app", "/app", 200, 101, "/app"),
        (None, "/app", "", 200, 101, "/app"),
        (None, "/app", "/apple", 404, 403, ""),
        (None, "/app/", "/app", 200, 101, "/app"),
        (None, "/é", "/%C3%A9", 200, 101, "/%C3%A9"),
        # both
        ("/app", "/app", "/app", 200, 101, "/app"),
        ("/app", "/app", "", 200, 101, "/app"),
        ("/public", "/app", "/app", 200, 101, "/public"),
        ("/public", "/app", "", 200, 101, "/public"),
        ("/public", "/app", "/public", 200, 101, "/public"),
        ("/", "/app", "/app", 200, 101, ""),
    ],
)
async def test_mount_point_is_the_same_for_pages_and_websockets(
    forced: str | None, root: str, requested: str, pages: int, sockets: int, reverses: str, start: Start
) -> None:
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[], ALLOWED_HOSTS=["*"], FORCE_SCRIPT_NAME=forced):
        server = await start(site(), root_path=root)
        for where in PAGES:
            response = await server.request("GET", f"{requested}{where}")
            assert response.status == pages, where
            if pages == 200:
                assert f'"reverse": "{reverses}/page/"'.encode() in response.body
                assert f'"below": "{where}"'.encode() in response.body
        for where in SOCKETS:
            expected = (sockets, f"{reverses}/page/" if sockets == 101 else "")
            assert await status_of_websocket(server, f"{requested}{where}") == expected, where


@pytest.mark.parametrize("requested", ["/app/page", "/page"])
async def test_redirect_has_the_prefix_that_a_proxy_removed(requested: str) -> None:
    common = ["django.middleware.common.CommonMiddleware"]
    async with our_serve() as start:
        with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=common, ALLOWED_HOSTS=["*"]):
            server = await start(site(), root_path="/app")
            response = await server.request("GET", requested)
    assert (response.status, dict(response.headers)[b"location"]) == (301, b"/app/page/")


async def test_origin_check_does_not_see_the_mount_point() -> None:
    from trio_channels.security.websocket import AllowedHostsOriginValidator

    async with our_serve() as start:
        with override_settings(ALLOWED_HOSTS=["good.example"], ROOT_URLCONF=__name__, FORCE_SCRIPT_NAME="/app"):
            checked = AllowedHostsOriginValidator(URLRouter(WEBSOCKETS))
            server = await start(ProtocolTypeRouter({"websocket": checked}), root_path="/app")
            for origin, expected in (("http://good.example", 101), ("http://bad.example", 403)):
                status = 101
                try:
                    async with server.websocket("/app/async/", extra_headers=[(b"origin", origin.encode())]):
                        pass
                except ConnectionRejected as rejected:
                    status = rejected.status_code
                assert status == expected


async def test_asterisk_is_no_path_below_a_mount_point() -> None:
    seen: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with our_serve() as start:
        server = await start(ProtocolTypeRouter({"http": application}), root_path="/app")
        assert (await server.request("OPTIONS", "*")).status == 204
    assert seen == ["*"]


@pytest.mark.parametrize(("root", "fault"), [("app", "must begin with a slash"), ("/%C3%A9", "expected '/é'")])
async def test_malformed_root_path_is_refused_at_start(root: str, fault: str) -> None:
    from trio_channels.exceptions import ConfigurationError

    with pytest.raises(ConfigurationError, match=fault):
        await our_server.serve(site(), config_for_tests(root_path=root))


async def test_websocket_beside_the_mount_point_is_told_why(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(FORCE_SCRIPT_NAME="/app", ROOT_URLCONF=__name__):
        server = await serve(site())
        assert (await status_of_websocket(server, "/async/"))[0] == 403
    assert "'/async/' is not below FORCE_SCRIPT_NAME ('/app'), and the server has no root_path" in caplog.text
