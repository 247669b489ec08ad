"""Views and their database connections, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio
from django.contrib.auth.models import User
from django.db import connection
from django.db.backends.signals import connection_created
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path

from trio_channels._http.handler import DjangoHandler
from trio_channels.sync import sync_to_async

from .common import PatientCommunicator, client, fetch

pytestmark = pytest.mark.usefixtures("database")


def fails(request: HttpRequest) -> HttpResponse:
    User.objects.create(username="ada")
    raise LookupError("after the insertion")


def adds(request: HttpRequest) -> HttpResponse:
    User.objects.create(username="grace")
    return HttpResponse(str(connection.in_atomic_block))


def names(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        for user in User.objects.order_by("username").iterator(chunk_size=2):
            yield user.username

    return StreamingHttpResponse(parts())


def count(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(User.objects.count()))


urlpatterns = [path(f"{view.__name__}/", view) for view in (fails, adds, names, count)]


async def test_view_that_fails_is_rolled_back(database: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database, "ATOMIC_REQUESTS", True)
    assert (await fetch("/fails/"))["status"] == 500
    assert (await fetch("/count/"))["body"] == b"0"
    assert (await fetch("/adds/"))["body"] == b"True"
    assert (await fetch("/count/"))["body"] == b"1"


async def test_stream_of_a_query_goes_on_beside_other_requests() -> None:
    await sync_to_async(User.objects.bulk_create)([User(username=f"user {number}") for number in range(9)])
    async with client("/names/") as http:
        await http.send_request()
        await http.receive_output()
        for number in range(9):
            assert (await http.receive_output())["body"] == f"user {number}".encode()
            assert (await fetch("/count/"))["body"] == b"9"
        await http.wait()


async def test_connections_that_may_be_kept_are_as_many_as_workers(
    database: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(database, "CONN_MAX_AGE", None)
    opened: list[object] = []

    def note(connection: object, **_kwargs: Any) -> None:
        opened.append(connection)

    connection_created.connect(note)
    try:
        with override_settings(TRIO_CHANNELS={"WORKER_THREADS": 3}):
            handler = DjangoHandler()

            async def ask() -> None:
                async with PatientCommunicator(handler, "GET", "/count/") as http:
                    assert (await http.get_response())["body"] == b"0"

            for _ in range(4):
                async with trio.open_nursery() as nursery:
                    for _ in range(10):
                        nursery.start_soon(ask)
    finally:
        connection_created.disconnect(note)
    assert 1 <= len(opened) <= 3
