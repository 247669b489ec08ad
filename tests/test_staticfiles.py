"""Static files in development."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from trio_channels._asgi.protocol import Receive, Scope, Send
from trio_channels._asgi.responses import respond_plainly
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
