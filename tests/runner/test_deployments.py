"""Real deployments: TLS, IPv6, a unix socket, and nginx."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import pytest
import trio

from ..certificate import make_certificate
from ..ports import free_port
from ..process import Program, program
from .clients import RawClient
from .serving import serving

pytestmark = [pytest.mark.faults, pytest.mark.time_limit(240)]

BEHIND_PROXY = "tests.runner.application:behind_proxy"


async def get(stream: trio.abc.Stream, path: str, **headers: str) -> str:
    """One request on a connection of its own: the response's body."""
    parser, body = h11.Connection(h11.CLIENT), b""
    given = [("Host", "localhost"), ("Connection", "close"), *headers.items()]
    async with stream:
        await stream.send_all(parser.send(h11.Request(method="GET", target=path, headers=given)) or b"")
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                parser.receive_data(await stream.receive_some(65_536))
            elif isinstance(event, h11.Response):
                assert event.status_code == 200, event
            elif isinstance(event, h11.Data):
                body += event.data
    return body.decode()


async def echoes(stream: trio.abc.Stream, path: str = "/echo/") -> None:
    """Check that a WebSocket gets an echo."""
    async with stream:
        client = RawClient(stream)
        await client.shake_hands(path)
        await client.say("hello")
        assert (await client.hear()).endswith(" hello")


# -- without a proxy --------------------------------------------------------------------------------------------------


async def test_ipv6_and_a_unix_socket_are_served_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with serving("--bind=[::1]:0", f"--bind=unix:{path}", "--workers=2") as runner:
        port = int((await runner.said(r"Running on http://\[::1\]:(\d+) "))[0])
        await runner.said("Running on http://unix:")
        assert await get(await trio.open_tcp_stream("::1", port), "/about/") == "::1 http localhost"
        await echoes(await trio.open_tcp_stream("::1", port))
        assert await get(await trio.open_unix_socket(path), "/about/") == "None http localhost"
        await echoes(await trio.open_unix_socket(path))
        runner.process.send_signal(signal.SIGTERM)
        assert await runner.ends() == 0
    assert not path.exists()


async def test_tls_is_served_by_processes_and_drains(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(certificate))

    async def connect() -> trio.SSLStream[trio.SocketStream]:
        return trio.SSLStream(
            await trio.open_tcp_stream("127.0.0.1", port), context, server_hostname="127.0.0.1", https_compatible=True
        )

    async with serving("--workers=2", f"--certfile={certificate}", f"--keyfile={key}") as runner:
        port = int((await runner.said(r"Running on https://127.0.0.1:(\d+) "))[0])
        assert await get(await connect(), "/about/") == "127.0.0.1 https localhost"
        async with await connect() as stream:
            client = RawClient(stream)
            await client.shake_hands("/echo/")
            runner.process.send_signal(signal.SIGTERM)
            assert await client.close_code() == 1012
        assert await runner.ends() == 0
    assert "Traceback" not in runner.text


# -- behind nginx -----------------------------------------------------------------------------------------------------

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
needs_nginx = pytest.mark.skipif(
    NGINX is None, reason="There is no nginx: install it (Debian and Ubuntu: apt install nginx)."
)

CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    {temporary}
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    upstream application {{ server unix:{folder}/socket; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://application;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}
}}
"""


@asynccontextmanager
async def behind_nginx(folder: Path) -> AsyncIterator[tuple[Program, int]]:
    """Two processes on a unix socket, and nginx before them: the runner, and nginx' port."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(
            folder=folder, port=port, temporary="".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        )
    )
    start = f"import os; os.execv({NGINX!r}, ['nginx', '-e', 'stderr', '-c', {str(configuration)!r}])"
    async with (
        serving(f"--bind=unix:{folder}/socket", "--workers=2", app=BEHIND_PROXY) as runner,
        program("-c", start) as nginx,
    ):
        await runner.said("Running on", times=2)
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                break
            except OSError:
                assert nginx.process.poll() is None, nginx.text
        yield runner, port


@needs_nginx
async def test_nginx_is_believed_and_the_client_behind_it_is_not(tmp_path: Path) -> None:
    lies = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.test",
        "Forwarded": "for=6.6.6.6;proto=https",
    }
    async with behind_nginx(tmp_path) as (_, port):
        answer = await get(await trio.open_tcp_stream("127.0.0.1", port), "/about/", **lies)
        assert answer == "127.0.0.1 http localhost"


@needs_nginx
async def test_websockets_and_requests_behind_nginx_are_drained(tmp_path: Path) -> None:
    async with behind_nginx(tmp_path) as (runner, port), trio.open_nursery() as nursery:

        async def ask() -> None:
            assert await get(await trio.open_tcp_stream("127.0.0.1", port), "/slow/") == "finished"

        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            client = RawClient(stream)
            await client.shake_hands("/echo/")
            await client.say("hello")
            assert (await client.hear()).endswith(" hello")
            nursery.start_soon(ask)
            await runner.said("request begins")
            runner.process.send_signal(signal.SIGTERM)
            assert await client.close_code() == 1012
        assert await runner.ends() == 0


async def test_clients_that_leave_behind_nginx_leave_nothing(tmp_path: Path) -> None:
    """nginx closes the unix socket right behind the last data that it passes on, a close frame mostly."""
    rounds, crowd = 4, 100

    async def leave(number: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        client = RawClient(stream)
        await client.shake_hands("/echo/")
        await client.say("hello")
        if number % 3:
            await client.hear()
        if number % 2:
            await stream.send_all(b"\x88\x82\0\0\0\0\x03\xe8")  # a close frame, 1000
        if number % 5 == 0:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()

    async with behind_nginx(tmp_path) as (runner, port):
        for _ in range(rounds):
            async with trio.open_nursery() as nursery:
                for number in range(crowd):
                    nursery.start_soon(leave, number)
        await runner.said(r"disconnected \d+", times=rounds * crowd)
        await echoes(await trio.open_tcp_stream("127.0.0.1", port))
        runner.process.send_signal(signal.SIGTERM)
        assert await runner.ends() == 0
        assert runner.text.count("disconnected") == rounds * crowd + 1  # each of them once
    assert "Traceback" not in runner.text
