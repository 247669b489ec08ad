"""Behind nginx and HAProxy, with the configurations of the documentation."""

from __future__ import annotations

import os
import re
import shutil
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import h11
import pytest
import trio

from trio_channels import _conf

from ..certificate import make_certificate
from ..ports import free_port
from ..process import ROOT, Program, program
from .clients import RawClient
from .serving import serving
from .test_deployments import BEHIND_PROXY, get

pytestmark = [pytest.mark.faults, pytest.mark.time_limit(240)]

PAGE = ROOT / "docs" / "how-to" / "deploy.md"
SBIN = f"{os.environ['PATH']}:/usr/sbin"


#: A part of each proxy's sample that no other sample of the page has.
PARTS = {"nginx": "upstream mysite {", "haproxy": "backend "}


def documented(name: str) -> str:
    """The sample of the page for this proxy."""
    blocks = re.findall(r"^```\w+\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (block,) = [block for block in blocks if PARTS[name] in block]
    return str(block)


class Proxy(NamedTuple):
    program: str
    changes: dict[str, str]  # the documentation's paths and ports, and those of a test in their place

    def configure(self, folder: Path, port: int) -> str:
        text = documented(self.program)
        for there, here in self.changes.items():
            assert there in text, f"the configuration of the documentation has no {there!r}"
            text = text.replace(there, here.format(folder=folder, port=port))
        return text

    @property
    def command(self) -> list[str]:
        return {"nginx": ["nginx", "-e", "stderr", "-c"], "haproxy": ["haproxy", "-db", "-f"]}[self.program]


NGINX = Proxy(
    "nginx",
    {
        "/run/mysite/http.sock": "{folder}/socket",
        "listen 443": "listen 127.0.0.1:{port}",
        "/etc/ssl/example.com": "{folder}/both",
        "/srv/mysite/static/": "{folder}/static/",
    },
)
HAPROXY = Proxy(
    "haproxy",
    {
        "/run/mysite/http.sock": "{folder}/socket",
        "bind :443": "bind 127.0.0.1:{port}",
        "/etc/ssl/example.com": "{folder}/both",
    },
)
HAPROXY_HTTP2 = Proxy("haproxy", {**HAPROXY.changes, "/run/mysite/http.sock": "{folder}/socket proto h2"})

#: The rest of nginx' configuration, around the documentation's part.
AROUND = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
access_log off;
{temporary}
{documented}
}}
"""


def needs(name: str) -> pytest.MarkDecorator:
    reason = f"There is no {name}: install it (Debian and Ubuntu: apt install {name})."
    return pytest.mark.skipif(shutil.which(name, path=SBIN) is None, reason=reason)


proxies = pytest.mark.parametrize(
    "proxy",
    [
        pytest.param(NGINX, marks=needs("nginx"), id="nginx"),
        pytest.param(HAPROXY, marks=needs("haproxy"), id="HAProxy, HTTP/1.1"),
        pytest.param(HAPROXY_HTTP2, marks=needs("haproxy"), id="HAProxy, HTTP/2"),
    ],
)


class Site(NamedTuple):
    runner: Program
    port: int
    trusted: ssl.SSLContext

    async def connect(self) -> trio.SSLStream[trio.SocketStream]:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        return trio.SSLStream(stream, self.trusted, server_hostname="127.0.0.1", https_compatible=True)


@asynccontextmanager
async def behind(proxy: Proxy, folder: Path) -> AsyncIterator[Site]:
    """A process on a unix socket, and the proxy before it."""
    port = free_port()
    certificate, key = make_certificate(folder)
    for name in ("both.pem", "both.key"):
        (folder / name).write_text(certificate.read_text() + key.read_text())
    text = proxy.configure(folder, port)
    if proxy.program == "nginx":
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        text = AROUND.format(folder=folder, temporary=temporary, documented=text)
    configuration = folder / "configuration"
    configuration.write_text(text)
    path = shutil.which(proxy.program, path=SBIN)
    start = f"import os; os.execv({path!r}, {[*proxy.command, str(configuration)]!r})"
    async with serving(f"--bind=unix:{folder}/socket", "--access-log=-", app=BEHIND_PROXY) as runner:
        await runner.said("Running on")
        async with program("-c", start) as running:
            while True:
                try:
                    await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                    break
                except OSError:
                    assert running.process.poll() is None, running.text
            yield Site(runner, port, ssl.create_default_context(cafile=str(certificate)))


@proxies
async def test_proxy_says_who_the_client_is(proxy: Proxy, tmp_path: Path) -> None:
    lies = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "http"}
    async with behind(proxy, tmp_path) as site:
        assert await get(await site.connect(), "/about/", **lies) == "127.0.0.1 https localhost"
        version = "2" if proxy is HAPROXY_HTTP2 else "1.1"
        await site.runner.said(f'"GET /about/ {version}" 200')


@proxies
async def test_websocket_goes_through_and_is_drained(proxy: Proxy, tmp_path: Path) -> None:
    async with behind(proxy, tmp_path) as site, await site.connect() as stream:
        client = RawClient(stream)
        await client.shake_hands("/echo/")
        for _ in range(10):
            await client.say("hello")
            assert (await client.hear()).endswith(" hello")
        site.runner.process.send_signal(signal.SIGTERM)
        assert await client.close_code() == 1012
        assert await site.runner.ends() == 0
    assert "Traceback" not in site.runner.text


@proxies
@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 413)], ids=["the limit", "a byte more"])
async def test_upload_is_limited_by_the_setting(proxy: Proxy, more: int, status: int, tmp_path: Path) -> None:
    size = _conf.get("MAX_UPLOAD_SIZE") + more
    async with behind(proxy, tmp_path) as site:
        assert await upload(await site.connect(), size) == (status, size if status == 200 else None)


async def upload(stream: trio.abc.Stream, size: int) -> tuple[int, int | None]:
    """The status of an upload, and the size that the view has seen."""
    parser, body, status = h11.Connection(h11.CLIENT), b"", 0
    head = h11.Request(method="POST", target="/upload/", headers=[("Host", "localhost"), ("Content-Length", f"{size}")])
    async with stream, trio.open_nursery() as nursery:
        await stream.send_all(parser.send(head) or b"")

        async def send() -> None:
            left, part = size, bytes(2**20)
            try:
                while left:
                    await stream.send_all(part[: min(left, len(part))])
                    left -= min(left, len(part))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the answer came early

        nursery.start_soon(send)
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                parser.receive_data(await stream.receive_some(65_536))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
        nursery.cancel_scope.cancel()
    return status, int(body) if status == 200 else None
