"""Uploads for which the disk has no room."""

from __future__ import annotations

import errno
import logging
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from .common import client

MIB = 2**20


def reads(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"%d" % len(request.read()))


urlpatterns = [path("reads/", reads)]


async def upload(parts: int) -> Any:
    http = client("/reads/", "POST")
    async with http:
        for number in range(parts):
            await http.send_input({"type": "http.request", "body": bytes(MIB), "more_body": number < parts - 1})
        http._request_sent = True
        return await http.get_response(timeout=30)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel lets this process write no larger file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_upload_without_room_is_507(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=MIB, FILE_UPLOAD_TEMP_DIR=str(tmp_path)):
        with files_of_at_most(2 * MIB):
            response = await upload(8)
        assert (response["status"], response["body"]) == (507, b"The request body could not be stored.\n")
        assert lines(caplog) == [
            f"cannot write a request body to {tmp_path} (FILE_UPLOAD_TEMP_DIR): File too large: answering 507"
        ]
        assert [record.exc_info for record in caplog.records if record.exc_info] == []
        assert not any(tmp_path.iterdir())  # noqa: ASYNC240
        assert (await upload(8))["body"] == b"%d" % (8 * MIB)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.ENOSPC, 507),
        (errno.EDQUOT, 507),
        (errno.EROFS, 500),
        (errno.EIO, 500),
        (errno.EACCES, 500),
        (errno.EMFILE, 500),
    ],
    ids=lambda value: errno.errorcode.get(value),
)
@pytest.mark.parametrize("call", ["write", "seek"])
async def test_fault_of_the_disk_is_a_line(
    call: str, number: int, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Any] = []

    class Broken(tempfile.SpooledTemporaryFile):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

        def close(self) -> None:
            super().close()
            raise OSError(number, "once more")

    def fails(*arguments: Any) -> None:
        raise OSError(number, "the reason")

    monkeypatch.setattr(Broken, call, fails)
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Broken)
    with override_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=0):
        assert (await upload(2))["status"] == status
    (line,) = lines(caplog)
    assert line.endswith(f": the reason: answering {status}")
    assert made[0].closed


async def test_folder_that_is_missing_is_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "none"
    with override_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=MIB, FILE_UPLOAD_TEMP_DIR=str(folder)):
        assert (await upload(3))["status"] == 500
    (line,) = lines(caplog)
    assert line.startswith(f"cannot write a request body to {folder} (FILE_UPLOAD_TEMP_DIR): No such file")
