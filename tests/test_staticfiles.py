"""Static files in development."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.test import override_settings

from trio_channels._asgi.protocol import Receive, Scope, Send
from trio_channels._asgi.responses import respond_plainly
from trio_channels._http.ranges import FilePart
from trio_channels.staticfiles import StaticFilesHandler
from trio_channels.testing import HttpCommunicator

urlpatterns: list[Any] = []


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands behind the static files."""
    await respond_plainly(send, 200, "the application")


@pytest.fixture
def static(tmp_path: Path) -> Any:
    (tmp_path / "site.css").write_text("body { color: teal }")
    (tmp_path / "large.bin").write_bytes(bytes(1_000_000))
    with override_settings(STATIC_URL="static/", STATICFILES_DIRS=[str(tmp_path)], ROOT_URLCONF=__name__):
        yield StaticFilesHandler(application)


async def get(app: Any, path: str, method: str = "GET", headers: Any = ()) -> Any:
    async with HttpCommunicator(app, method, path, headers=list(headers)) as client:
        return await client.get_response(timeout=30)


async def test_file_is_served_with_its_type(static: Any) -> None:
    response = await get(static, "/static/site.css")
    assert (response["status"], response["body"]) == (200, b"body { color: teal }")
    assert (b"Content-Type", b"text/css") in response["headers"]


async def test_file_of_many_parts_is_served_whole(static: Any) -> None:
    assert len((await get(static, "/static/large.bin"))["body"]) == 1_000_000


async def test_file_that_has_not_changed_is_not_sent_again(static: Any) -> None:
    headers = dict((await get(static, "/static/site.css"))["headers"])
    again = await get(static, "/static/site.css", headers=[(b"if-modified-since", headers[b"Last-Modified"])])
    assert (again["status"], again["body"]) == (304, b"")


async def test_client_of_topics_is_served(static: Any) -> None:
    response = await get(static, "/static/trio_channels/topics.js")
    assert (response["status"], dict(response["headers"])[b"Content-Type"]) == (200, b"text/javascript")
    assert b"export class Socket" in response["body"]


def test_types_of_the_client_are_found_beside_it() -> None:
    module, types = (finders.find(f"trio_channels/topics.{suffix}") for suffix in ("js", "d.ts"))
    assert types == module.removesuffix("js") + "d.ts"


@pytest.mark.parametrize("path", ["/static/none.css", "/static/"])
async def test_what_is_no_file_is_not_found(static: Any, path: str) -> None:
    assert (await get(static, path))["status"] == 404


async def test_what_leads_out_of_the_folder_is_a_bad_request(static: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert (await get(static, "/static/../settings.py"))["status"] == 400
    assert "django.security.SuspiciousFileOperation" in {record.name for record in caplog.records}


@pytest.mark.parametrize("path", ["/", "/statics", "/other/static/site.css"])
async def test_everything_else_goes_to_the_application(static: Any, path: str) -> None:
    assert (await get(static, path))["body"] == b"the application\n"


async def test_files_of_another_host_are_left_to_it(tmp_path: Path) -> None:
    with override_settings(STATIC_URL="https://cdn.example/static/", STATICFILES_DIRS=[str(tmp_path)]):
        assert (await get(StaticFilesHandler(application), "/static/site.css"))["body"] == b"the application\n"


async def test_what_is_no_request_goes_to_the_application() -> None:
    seen = []

    async def other(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    with override_settings(STATIC_URL="static/"):
        handler = StaticFilesHandler(other)
        await handler({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
        await handler({"type": "websocket", "path": "/static/site.css"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan", "websocket"]


def test_it_says_what_it_is() -> None:
    with override_settings(STATIC_URL="static/"):
        assert repr(StaticFilesHandler(application)).startswith("<StaticFilesHandler of /static/ before <function appl")


# -- parts of files ---------------------------------------------------------------------------------------------------

CSS = b"body { color: teal }"  # 20 bytes


@pytest.fixture
def old(static: Any, tmp_path: Path) -> Any:
    """Files that were not changed a moment ago: their date tells their versions apart."""
    for path in tmp_path.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    (tmp_path / "empty.css").touch()
    return static


def fields(response: Any) -> dict[bytes, bytes]:
    return {name.lower(): value for name, value in response["headers"]}


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ("bytes=0-3", slice(0, 4)),
        ("bytes=5-5", slice(5, 6)),
        ("bytes=15-", slice(15, 20)),
        ("bytes=15-19", slice(15, 20)),
        ("bytes=15-9999999", slice(15, 20)),
        ("bytes=15-" + "9" * 5_000, slice(15, 20)),
        ("bytes=" + "0" * 5_000 + "1-2", slice(1, 3)),
        ("bytes=-6", slice(14, 20)),
        ("bytes=-9999", slice(0, 20)),
        ("Bytes = 0 - 3", slice(0, 4)),
    ],
)
async def test_range_is_answered_with_that_part(old: Any, wanted: str, part: slice) -> None:
    response = await get(old, "/static/site.css", headers=[(b"range", wanted.encode())])
    assert (response["status"], response["body"]) == (206, CSS[part])
    sent = fields(response)
    assert sent[b"content-range"] == b"bytes %d-%d/20" % (part.start, part.stop - 1)
    assert sent[b"content-length"] == b"%d" % (part.stop - part.start)
    assert (sent[b"content-type"], sent[b"accept-ranges"]) == (b"text/css", b"bytes")


@pytest.mark.parametrize("wanted", ["bytes=20-", "bytes=20-30", "bytes=-0", "bytes=" + "9" * 5_000 + "-"])
async def test_range_beyond_the_file_is_416(old: Any, wanted: str) -> None:
    response = await get(old, "/static/site.css", headers=[(b"range", wanted.encode())])
    assert (response["status"], response["body"]) == (416, b"")
    assert fields(response)[b"content-range"] == b"bytes */20"


async def test_empty_file_has_no_range(old: Any) -> None:
    response = await get(old, "/static/empty.css", headers=[(b"range", b"bytes=0-")])
    assert (response["status"], fields(response)[b"content-range"]) == (416, b"bytes */0")


@pytest.mark.parametrize(
    "wanted",
    [
        "bytes=0-1,3-4",
        "bytes=5-2",
        "bytes=-",
        "bytes=",
        "bytes",
        "",
        "lines=0-3",
        "bytes=a-b",
        "bytes=\xb2-",
        "bytes=--1",
    ],
)
async def test_range_of_another_kind_is_ignored(old: Any, wanted: str) -> None:
    response = await get(old, "/static/site.css", headers=[(b"range", wanted.encode("latin-1"))])
    assert (response["status"], response["body"]) == (200, CSS)
    assert b"content-range" not in fields(response)


@pytest.mark.parametrize("method", ["HEAD", "POST"])
async def test_range_means_something_for_get_alone(old: Any, method: str) -> None:
    response = await get(old, "/static/site.css", method, [(b"range", b"bytes=0-3")])
    assert response["status"] == 200
    assert fields(response)[b"content-length"] == b"20"
    assert fields(response)[b"accept-ranges"] == b"bytes"


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("Tue, 14 Nov 2023 22:13:20 GMT", 206),
        ("Tue, 14 Nov 2023 22:13:19 GMT", 200),
        ("Tue, 14 Nov 2023 22:13:21 GMT", 200),
        ('"tag"', 200),
        ('W/"tag"', 200),
        ("", 200),
    ],
)
async def test_range_of_another_version_is_ignored(old: Any, condition: str, status: int) -> None:
    headers = [(b"range", b"bytes=0-3"), (b"if-range", condition.encode())]
    assert (await get(old, "/static/site.css", headers=headers))["status"] == status


async def test_date_of_a_file_just_changed_is_no_version(old: Any, tmp_path: Path) -> None:
    now = time.time() + 60
    os.utime(tmp_path / "site.css", (now, now))
    modified = fields(await get(old, "/static/site.css"))[b"last-modified"]
    headers = [(b"range", b"bytes=0-3"), (b"if-range", modified)]
    assert (await get(old, "/static/site.css", headers=headers))["status"] == 200


async def test_file_that_has_not_changed_has_no_range(old: Any) -> None:
    headers = [(b"range", b"bytes=0-3"), (b"if-modified-since", b"Tue, 14 Nov 2023 22:13:20 GMT")]
    assert (await get(old, "/static/site.css", headers=headers))["status"] == 304


async def test_part_of_a_large_file_is_sent_and_the_file_closed(
    old: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[Any] = []
    init = FilePart.__init__

    def noted(part: FilePart, file: Any, start: int, size: int) -> None:
        files.append(file)
        init(part, file, start, size)

    monkeypatch.setattr(FilePart, "__init__", noted)
    content = bytes(range(256)) * 4_000
    (tmp_path / "large.bin").write_bytes(content)
    response = await get(old, "/static/large.bin", headers=[(b"range", b"bytes=1000-900999")])
    assert (response["status"], response["body"]) == (206, content[1_000:901_000])
    assert [file.closed for file in files] == [True]
