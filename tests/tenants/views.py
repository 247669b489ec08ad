"""The site of many tenants: each view answers with the owners of all notes that it sees, one in a line.

Every view waits, after the middleware has set the tenant and again before each further look, until all requests of the
round have come so far. So they certainly mix.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import trio
from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from trio_channels.db import aatomic, database_sync_to_async, pinned

from .models import Note


class Meeting:
    """Where so many tasks wait for each other, again and again."""

    def __init__(self) -> None:
        self._waiting = 0
        self._all_there = trio.Event()

    async def wait(self, size: int) -> None:
        self._waiting += 1
        all_there = self._all_there
        if self._waiting == size:
            self._waiting, self._all_there = 0, trio.Event()
            all_there.set()
        await all_there.wait()


meeting = Meeting()


async def meet(request: HttpRequest) -> None:
    await meeting.wait(int(request.GET["requests"]))


def owners() -> list[str]:
    return [note.owner for note in Note.objects.all()]


def answer(*seen: list[str]) -> HttpResponse:
    return HttpResponse("".join(f"{owner}\n" for part in seen for owner in part))


async def orm(request: HttpRequest) -> HttpResponse:
    await meet(request)
    first = (await Note.objects.afirst()).owner  # type: ignore[union-attr]
    await meet(request)
    listed = [note.owner async for note in Note.objects.all()]
    await meet(request)
    added = await Note.objects.acreate(owner="nobody")
    await meet(request)
    await added.adelete()
    await meet(request)
    return answer([first], listed, [note.owner async for note in Note.objects.aiterator(chunk_size=1)])


async def called(request: HttpRequest) -> HttpResponse:
    await meet(request)
    first = await sync_to_async(owners)()
    await meet(request)
    return answer(first, await database_sync_to_async(owners)())


async def in_blocks(request: HttpRequest) -> HttpResponse:
    await meet(request)
    async with aatomic():
        first = [note.owner async for note in Note.objects.all()]
        await meet(request)
    await meet(request)
    async with pinned():
        await meet(request)
        return answer(first, await sync_to_async(owners)())


async def streamed(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        await meet(request)
        async for note in Note.objects.aiterator(chunk_size=1):
            yield f"{note.owner}\n"
        await meet(request)
        for owner in await sync_to_async(owners)():
            yield f"{owner}\n"

    await meet(request)
    return StreamingHttpResponse(parts())


async def streamed_in_sync(request: HttpRequest) -> StreamingHttpResponse:
    await meet(request)

    def parts() -> Iterator[str]:
        for _ in range(2):
            for note in Note.objects.iterator(chunk_size=1):
                yield f"{note.owner}\n"

    return StreamingHttpResponse(parts())


def plain(request: HttpRequest) -> HttpResponse:
    return answer(owners())


VIEWS = (orm, called, in_blocks, streamed, streamed_in_sync, plain)
urlpatterns = [path(f"{view.__name__}/", view) for view in VIEWS]
