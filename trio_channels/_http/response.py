"""A response on its way to the client."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import trio
from django.core.files.base import File
from django.http import FileResponse
from django.http.response import HttpResponseBase, StreamingHttpResponse

from .._asgi.protocol import Message, describe
from .._threads.affinity import Affinity
from .._threads.database import run_in_worker
from .client import Client, ClientLeft

logger = logging.getLogger("django.request")

#: Bytes of a file that one call to a worker thread reads.
FILE_BLOCK = 256 * 1024

#: Runs a function on a worker thread.
Run = Callable[..., Awaitable[Any]]

#: Modules whose files any thread can read and close.
_FILE_MODULES = ("_io", "io", "tempfile", "django.core.files.base", "django.core.files.temp")


def detach_file(response: FileResponse) -> bool:
    """Have the response's file survive the response's ``close()``; whether it can be sent by any thread.

    Not if it is not a file of Python's: a storage's may keep a connection to another server on its thread. Nor if the
    request closes it, as an uploaded one.
    """
    file: Any = response.file_to_stream  # None where a middleware has put an iterator in the file's place
    kept = getattr(file, "close", None)
    inner = file
    while isinstance(inner, File) and type(inner).__module__ in ("django.db.models.fields.files", *_FILE_MODULES):
        inner = inner.file
    closers: list[Any] = response._resource_closers  # type: ignore[attr-defined]
    if type(inner).__module__ not in _FILE_MODULES or kept not in closers:
        return False
    closers.remove(kept)
    return True


def close_file(response: FileResponse) -> None:
    """Close a file that was detached."""
    file: Any = response.file_to_stream
    file.close()


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


async def send_file(client: Client, response: FileResponse) -> None:
    """Send a file that was detached. Raises and cancellation: as :func:`send_whole`."""
    await client.send(_start(response))
    if client.scope["method"] != "HEAD":
        await _send_parts(client, response, functools.partial(run_in_worker, neutral=True))
    await client.send({"type": "http.response.body"})


async def send_stream(client: Client, response: StreamingHttpResponse, thread: Affinity, patience: float) -> None:
    """Send a response part by part: asynchronous iterators run here, synchronous ones on the request's thread.

    Args:
        patience: seconds that the client may take for a part while a thread is held for it.

    Raises and cancellation: as :func:`send_whole`.
    """
    await client.send(_start(response))
    # What answers HEAD has no body; an endless one would never end.
    if client.scope["method"] != "HEAD":
        hurried = _Hurried(client, thread, patience)
        if response.is_async:
            await _send_async_parts(hurried, response)
        else:
            await _send_parts(hurried, response, run_in_worker)
    await client.send({"type": "http.response.body"})


async def _send_parts(client: Client | _Hurried, response: StreamingHttpResponse, run: Run) -> None:
    parts: Iterator[bytes] = iter(response)
    while part := await run(_next_part, parts):
        await client.send({"type": "http.response.body", "body": part, "more_body": True})


def _next_part(parts: Iterator[bytes]) -> bytes:
    """The next part that is not empty, or nothing at the end."""
    return next(filter(None, parts), b"")


async def _send_async_parts(client: _Hurried, response: StreamingHttpResponse) -> None:
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
    """A client that has to take each message in time while its request holds a worker thread."""

    def __init__(self, client: Client, thread: Affinity, patience: float) -> None:
        self._client = client
        self._thread = thread
        self._patience = patience

    async def send(self, message: Message) -> None:
        if self._thread.lease is None:
            await self._client.send(message)
            return
        with trio.move_on_after(self._patience):
            await self._client.send(message)
            return
        logger.warning(
            "cutting %s: the client took nothing for %g seconds (SEND_TIMEOUT), and its stream holds a worker thread",
            describe(self._client.scope),
            self._patience,
        )
        raise ClientLeft
