"""A response on its way to the client."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import trio
from django.http import FileResponse
from django.http.response import HttpResponseBase, StreamingHttpResponse

from .._asgi import Message, describe
from ._client import Client, ClientLeft

logger = logging.getLogger("django.request")

#: Bytes of a file that one call to a worker thread reads.
FILE_BLOCK = 256 * 1024

#: Runs a function on a worker thread.
Run = Callable[..., Awaitable[Any]]


def needs_its_thread(response: StreamingHttpResponse) -> bool:
    """Whether its parts are made by synchronous code, which began on one thread and has to go on there.

    A file is read by any thread.
    """
    return not response.is_async and not _is_file(response)


def _is_file(response: HttpResponseBase) -> bool:
    # None where a middleware has put something else, as a compressing generator, in the file's place.
    return isinstance(response, FileResponse) and response.file_to_stream is not None


def note_source(response: object) -> None:
    """Keep the iterator of a view's response: what middleware puts around it does not close it."""
    if isinstance(response, StreamingHttpResponse) and response.is_async:
        response._trio_source = response._iterator  # type: ignore[attr-defined]


def _start(response: HttpResponseBase) -> Message:
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
    if response.cookies:
        headers += [(b"Set-Cookie", cookie.OutputString().encode("ascii")) for cookie in response.cookies.values()]
    return {"type": "http.response.start", "status": response.status_code, "headers": headers}


async def send_whole(client: Client, response: HttpResponseBase) -> None:
    """Send a response that has its content.

    Raises:
        ClientLeft: the client has gone.

    Cancellation: the client gets none, or a part of it.
    """
    content: bytes = response.content  # type: ignore[attr-defined]
    await client.send(_start(response))
    await client.send({"type": "http.response.body", "body": content})


async def send_stream(client: Client, response: StreamingHttpResponse, run: Run, patience: float) -> None:
    """Send a response part by part: asynchronous iterators run here, synchronous ones by `run`.

    Args:
        patience: seconds that the client may take for a part while a thread is held for it.

    Raises and cancellation: as :func:`send_whole`.
    """
    await client.send(_start(response))
    # What answers HEAD has no body; an endless one would never end.
    if client.scope["method"] != "HEAD":
        if response.is_async:
            await _send_async_parts(client, response)
        elif _is_file(response):
            await _send_parts(client, response, run)
        else:
            await _send_parts(_Hurried(client, patience), response, run)
    await client.send({"type": "http.response.body"})


async def _send_parts(client: Client | _Hurried, response: StreamingHttpResponse, run: Run) -> None:
    parts: Iterator[bytes] = iter(response)
    while part := await run(_next_part, parts):
        await client.send({"type": "http.response.body", "body": part, "more_body": True})


def _next_part(parts: Iterator[bytes]) -> bytes:
    """The next part that is not empty, or nothing at the end."""
    return next(filter(None, parts), b"")


async def _send_async_parts(client: Client, response: StreamingHttpResponse) -> None:
    # Not by iterating over the response, which wraps this twice in generators that do not close it.
    parts: AsyncIterator[Any] = response._iterator  # type: ignore[attr-defined]
    try:
        async for part in parts:
            data = response.make_bytes(part)
            if data:
                await client.send({"type": "http.response.body", "body": data, "more_body": True})
            else:
                await trio.lowlevel.checkpoint()
    finally:
        for each in (parts, getattr(response, "_trio_source", parts)):
            if hasattr(each, "aclose"):
                await each.aclose()


class _Hurried:
    """A client for whom a worker thread is held: it has to take what it is sent."""

    def __init__(self, client: Client, patience: float) -> None:
        self._client = client
        self._patience = patience

    async def send(self, message: Message) -> None:
        with trio.move_on_after(self._patience):
            await self._client.send(message)
            return
        logger.warning(
            "cutting %s: the client took nothing for %g seconds (SEND_TIMEOUT), and its stream holds a worker thread",
            describe(self._client.scope),
            self._patience,
        )
        raise ClientLeft
