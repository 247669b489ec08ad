"""``manage.py runserver`` as a process, as people use it."""

from __future__ import annotations

import socket

import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, wrap_client_stream

from .conftest import ASGI, PATIENCE, SETTINGS, URLS, Project

pytestmark = pytest.mark.faults

#: A route in place of the bare consumer.
BELOW = """
from django.urls import path
from trio_channels.routing import URLRouter
router = URLRouter([path("ws/", Echo.as_asgi())])
application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": router})
"""


def test_runserver_serves_everything_and_ends_on_ctrl_c(project: Project) -> None:
    project.serve("0", "--noreload")

    async def echo() -> str:
        async with (
            trio.open_nursery() as nursery,
            await trio.open_tcp_stream("127.0.0.1", project.port) as stream,
            await wrap_client_stream(nursery, stream, "127.0.0.1", "/") as client,
        ):
            await client.send_message("an echo")
            return str(await client.get_message())

    assert project.get("/hello/?token=hush") == (200, "hello")
    assert project.get("/static/site.css") == (200, "body {}")
    assert project.get("/static/none.css")[0] == 404
    assert trio.run(echo) == "an echo"
    assert project.stop() == 0
    assert "Starting ASGI development server on Trio" in project.output
    assert '"GET /hello/?token=*** HTTP/1.1" 200' in project.output
    assert '"GET / HTTP/1.1" 101' in project.output
    assert '"GET / HTTP/1.1" 1000' in project.output
    assert "Traceback" not in project.output


def test_runserver_serves_below_a_mount_point(project: Project) -> None:
    project.write("site_settings", f'{SETTINGS}FORCE_SCRIPT_NAME = "/app"')
    project.write("site_asgi", f"{ASGI}\n{BELOW}")
    project.serve("0", "--noreload")

    async def echo(where: str) -> str:
        async with (
            trio.open_nursery() as nursery,
            await trio.open_tcp_stream("127.0.0.1", project.port) as stream,
            await wrap_client_stream(nursery, stream, "127.0.0.1", where) as client,
        ):
            await client.send_message("an echo")
            return str(await client.get_message())

    assert project.get("/app/hello/") == (200, "hello")
    assert project.get("/app/static/site.css") == (200, "body {}")
    assert trio.run(echo, "/app/ws/") == "an echo"
    with pytest.RaisesGroup(ConnectionRejected):
        trio.run(echo, "/ws/")
    assert project.stop() == 0


def test_changed_file_has_it_reload_and_tells_the_websockets(project: Project) -> None:
    project.serve("0")
    assert project.get("/hello/") == (200, "hello")

    async def change() -> int:
        async with (
            trio.open_nursery() as nursery,
            await trio.open_tcp_stream("127.0.0.1", project.port) as stream,
            await wrap_client_stream(nursery, stream, "127.0.0.1", "/") as client,
        ):
            await client.send_message("I am here")
            assert await client.get_message() == "I am here"
            with (
                project.changing("site_urls", URLS.replace('"hello"', '"hello, changed"')),
                pytest.raises(ConnectionClosed) as closed,
                trio.fail_after(PATIENCE),
            ):
                await client.get_message()
            assert closed.value.reason is not None
            return closed.value.reason.code

    assert trio.run(change) == 1012
    project.wait_until_it_listens()
    assert project.get("/hello/") == (200, "hello, changed")
    assert project.stop() == 0
    assert "Traceback" not in project.output


def test_error_in_a_file_is_shown_and_a_repair_is_noticed(project: Project) -> None:
    project.write("site_asgi", "import no_such_module")
    project.start("0")
    project.wait_for("ModuleNotFoundError: No module named 'no_such_module'")
    assert "ASGI_APPLICATION" not in project.output
    with project.changing("site_asgi", ASGI):
        project.wait_for("(changed, reloading)")  # changed once more, it would begin again, at another port
    project.wait_until_it_listens()
    assert project.get("/hello/") == (200, "hello")
    assert project.stop() == 0


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_with_6_it_serves_on_ipv6(project: Project) -> None:
    project.serve("-6", "0", "--noreload")
    assert "http://[::1]:" in project.output
    assert project.get("/hello/", host="[::1]") == (200, "hello")
    assert project.stop() == 0


def test_taken_port_is_explained_in_a_sentence(project: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        project.start(str(taken.getsockname()[1]), "--noreload")
        assert project.wait() == 1
    assert project.output.endswith("Error: That port is already in use.\n")
    assert "Traceback" not in project.output


def test_with_noasgi_djangos_own_server_serves(project: Project) -> None:
    project.serve("0", "--noreload", "--noasgi")
    assert project.get("/hello/") == (200, "hello")
    assert project.get("/static/site.css") == (200, "body {}")
    assert project.stop() == 0
