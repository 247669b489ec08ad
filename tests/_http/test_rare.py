"""Responses and requests that are seldom met."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.files import File
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from trio_channels._threads.database import thread_pool
from trio_channels.db import aatomic, pinned

from .common import fetch

HERE = Path(__file__)
CONTENT = HERE.read_bytes()


class Counting:
    """An asynchronous iterator that is no generator."""

    def __init__(self) -> None:
        self._left = [b"two", b"one"]

    def __aiter__(self) -> Counting:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def counted(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(Counting())


files: list[Any] = []


def wrapped_file(request: HttpRequest) -> FileResponse:
    files.append(HERE.open("rb"))  # Django closes it
    return FileResponse(File(files[-1]))


async def threads(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str({await sync_to_async(threading.get_ident)() for _ in range(2)}))


async def transaction_in_a_block(request: HttpRequest) -> HttpResponse:
    seen = set()
    async with pinned():
        async with aatomic():
            seen.add(await sync_to_async(threading.get_ident)())
        seen.add(await sync_to_async(threading.get_ident)())
    return HttpResponse(str(len(seen)))


VIEWS = (counted, wrapped_file, threads, transaction_in_a_block)
urlpatterns = [path(f"{view.__name__}/", view) for view in VIEWS]


async def test_iterator_without_aclose_is_streamed() -> None:
    assert (await fetch("/counted/"))["body"] == b"onetwo"


async def test_file_in_djangos_wrapper_is_sent_and_closed() -> None:
    assert (await fetch("/wrapped_file/"))["body"] == CONTENT
    assert files.pop().closed


async def test_request_in_a_block_is_on_its_thread() -> None:
    async with pinned():
        mine = await sync_to_async(threading.get_ident)()
        assert (await fetch("/threads/"))["body"] == str({mine}).encode()
    assert thread_pool().statistics().leased == 0


@pytest.mark.django_db(transaction=True)
async def test_transaction_in_a_block_is_on_its_thread() -> None:
    assert (await fetch("/transaction_in_a_block/"))["body"] == b"1"
    assert thread_pool().statistics().leased == 0
