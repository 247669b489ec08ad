"""The thumbnail example: a real server, a real worker and a real Redis, started by its own script."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from ...ports import free_port
from ...redis_server import needs_redis
from ..server.conftest import SAFETY
from .conftest import ROOT

pytestmark = [
    pytest.mark.faults,
    needs_redis,
    pytest.mark.skipif(find_spec("PIL") is None, reason="There is no Pillow: pip install pillow."),
]

SERVE = ROOT / "examples" / "thumbnails" / "serve.py"


class Gallery:
    """``serve.py`` as a process, and a visitor's requests."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.output = ""
        self.data = folder
        self.process = subprocess.Popen(
            [sys.executable, str(SERVE), str(self.port)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "GALLERY_DATA": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def read_until(self, *words: str) -> re.Match[str]:
        """Read the output of the processes until all patterns match; returns the match of the last one."""
        watchdog = threading.Timer(2 * SAFETY, os.killpg, [self.process.pid, signal.SIGTERM])
        watchdog.start()
        try:
            while not all(re.search(word, self.output) for word in words):
                line = self.process.stdout.readline()
                self.output += line
                assert line, f"the gallery has ended:\n{self.output}"
        finally:
            watchdog.cancel()
            watchdog.join()
        return re.search(words[-1], self.output)

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any, bytes]:
        """One HTTP request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SAFETY)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def post(self, path: str, **fields: str | tuple[str, bytes]) -> int:
        """Post a form of the page, with files as names and contents; returns the status."""
        _, headers, page = self.request("GET", "/")
        token = re.search(rb'csrfmiddlewaretoken" value="(\w+)"', page)
        parts = [b'--line\r\nContent-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n' + token[1]]
        for field, value in fields.items():
            file, content = (
                (b"", value.encode()) if isinstance(value, str) else (b'; filename="%b"' % value[0].encode(), value[1])
            )
            parts.append(
                b'--line\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b' % (field.encode(), file, content)
            )
        parts.append(b"--line--\r\n")
        kind, cookie = "multipart/form-data; boundary=line", headers["Set-Cookie"].partition(";")[0]
        return self.request("POST", path, b"\r\n".join(parts), Content_Type=kind, Cookie=cookie)[0]

    def upload(self, name: str, content: bytes) -> int:
        """Post a file."""
        return self.post("/", picture=(name, content))

    def end(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        self.output += self.process.communicate(timeout=2 * SAFETY)[0]
        return self.process.returncode


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    """A running gallery."""
    gallery = Gallery(tmp_path)
    try:
        gallery.read_until(r"Running on http", r"working on thumbnails", r"thumbnails  \(process (\d+)\)")
        yield gallery
    finally:
        if gallery.process.poll() is None:
            os.killpg(gallery.process.pid, signal.SIGTERM)
            gallery.process.communicate(timeout=2 * SAFETY)


def picture() -> bytes:
    from PIL import Image

    data = BytesIO()
    Image.effect_noise((800, 600), 50).convert("RGB").save(data, "JPEG")
    return data.getvalue()


async def message(page: WebSocketConnection) -> dict[str, Any]:
    with trio.fail_after(SAFETY):
        received: dict[str, Any] = json.loads(await page.get_message())
        return received


async def result(page: WebSocketConnection) -> dict[str, str]:
    """The next picture that is done, or cannot be made."""
    while True:
        changed: dict[str, str] = (await message(page)).get("changed", {})
        if changed.get("state") in ("done", "failed"):
            return changed


async def test_page_is_told_of_each_thumbnail_and_ctrl_c_ends_everything(gallery: Gallery) -> None:
    address, origin = f"ws://127.0.0.1:{gallery.port}/ws/gallery/", f"http://127.0.0.1:{gallery.port}"
    async with open_websocket_url(address, extra_headers=[(b"Origin", origin.encode())]) as page:
        assert await message(page) == {"all": []}
        assert await trio.to_thread.run_sync(gallery.upload, "noise.jpg", picture()) == 302
        made = await result(page)
        assert (made["name"], made["state"]) == ("noise.jpg", "done")
        status, headers, body = await trio.to_thread.run_sync(gallery.request, "GET", made["thumbnail"])
        assert (status, headers["Content-Type"], body[8:12]) == (200, "image/webp", b"WEBP")

        assert await trio.to_thread.run_sync(gallery.upload, "../../no.jpg", b"no picture") == 302
        failed = await result(page)
        assert (failed["name"], failed["state"], failed["attempt"]) == ("no.jpg", "failed", 1)
        assert failed["why"] == "This is not a picture, or its format is not known."

        # The worker dies; the next one does the jobs that it left or that came meanwhile.
        worker = int(gallery.read_until(r"thumbnails  \(process (\d+)\)")[1])
        os.kill(worker, signal.SIGKILL)
        assert await trio.to_thread.run_sync(gallery.upload, "again.jpg", picture()) == 302
        assert (await result(page))["name"] == "again.jpg"
    async with open_websocket_url(address, extra_headers=[(b"Origin", origin.encode())]) as page:
        assert [one["name"] for one in (await message(page))["all"]] == ["noise.jpg", "no.jpg", "again.jpg"]
    assert await trio.to_thread.run_sync(gallery.end) == 0, gallery.output
    assert "Traceback" not in gallery.output, gallery.output
    assert "ended with code -9; starting it again." in gallery.output
    assert "stopped: thumbnails: 1 handled, 0 failed, 0 running" in gallery.output


async def states(page: WebSocketConnection, *last: str) -> list[tuple[str, int]]:
    """The states of the next picture, with the number of the attempt, up to one of the states `last`."""
    seen: list[tuple[str, int]] = []
    while not seen or seen[-1][0] not in last:
        if changed := (await message(page)).get("changed"):
            seen.append((changed["state"], changed["attempt"]))
    return seen


async def test_page_is_told_of_retries_and_dead_letters(gallery: Gallery) -> None:
    address, origin = f"ws://127.0.0.1:{gallery.port}/ws/gallery/", f"http://127.0.0.1:{gallery.port}"
    async with open_websocket_url(address, extra_headers=[(b"Origin", origin.encode())]) as page:
        assert await message(page) == {"all": []}
        assert await trio.to_thread.run_sync(lambda: gallery.post("/samples/", kind="twice")) == 302
        seen = await states(page, "done", "dead")
        assert [state for state in seen if state[0] == "retrying"] == [("retrying", 1), ("retrying", 2)]
        assert seen[-1] == ("done", 3)
        assert await trio.to_thread.run_sync(lambda: gallery.post("/samples/", kind="always")) == 302
        assert (await states(page, "done", "dead"))[-1] == ("dead", 4)
