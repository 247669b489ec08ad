"""Sending responses: whole ones, files and streams."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import nullcontext
from typing import Any, TypeVar, TypeVarTuple

import trio
from django.core.files.base import File
from django.http import FileResponse
from django.http.response import HttpResponseBase, StreamingHttpResponse

from .._asgi.protocol import Message, describe
from .._threads.affinity import Affinity
from .._threads.database import run_in_thread, visit_thread
from .._threads.pool import never_refused
from .client import Client, ClientLeft
from .ranges import FilePart

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

logger = logging.getLogger("django.request")

FILE_BLOCK = 256 * 1024  # bytes of a file that one call to a thread reads

Run = Callable[..., Awaitable[Any]]  # runs a function on a thread

#: Modules of files that any thread can read and close: Python's own. A storage's file may keep a connection to another
#: server on its thread, and an uploaded file is closed by its request.
_FILE_MODULES = ("_io", "io", "tempfile", "django.core.files.base", "django.core.files.temp", FilePart.__module__)


def detach_file(response: FileResponse) -> bool:
    """Let the file of a response outlive the response's ``close()``; returns whether any thread can send it."""
    file: Any = response.file_to_stream  # None if a middleware has put an iterator in its place
    kept = getattr(file, "close", None)
    inner = file
    while isinstance(inner, File) and type(inner).__module__ in ("django.db.models.fields.files", *_FILE_MODULES):
        inner = inner.file
    closers: list[Any] = response._resource_closers  # type: ignore[attr-defined]
    if type(inner).__module__ not in _FILE_MODULES or kept not in closers:
        return False
    closers.remove(kept)
    return True


def note_source(response: StreamingHttpResponse) -> None:
    """Keep the iterator of a view's response: an iterator that middleware puts around it does not close it."""
    if response.is_async:
        response._trio_source = response._iterator  # type: ignore[attr-defined]


def _start(response: HttpResponseBase) -> Message:
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
    if response.cookies:
        headers += [(b"Set-Cookie", cookie.OutputString().encode("ascii")) for cookie in response.cookies.values()]
    return {"type": "http.response.start", "status": response.status_code, "headers": headers}


async def send_whole(client: Client, response: HttpResponseBase) -> None:
    """Send a response that has its whole content."""
    content: bytes = response.content  # type: ignore[attr-defined]
    await client.respond(_start(response), {"type": "http.response.body", "body": content})


async def send_file(client: Client, response: FileResponse) -> None:
    """Send a file that was detached, and close it, on any thread."""
    try:
        await client.while_there(_send_file, client, response)
    finally:
        file: Any = response.file_to_stream
        await at_the_end(run_in_thread, file.close)


async def _send_file(client: Client, response: FileResponse) -> None:
    await client.send(_start(response))
    if client.scope["method"] != "HEAD":
        await _send_parts(client, response, functools.partial(run_in_thread, neutral=True))
    await client.send({"type": "http.response.body"})


async def stream(client: Client, response: StreamingHttpResponse, thread: Affinity, patience: float) -> None:
    """Send a response part by part, and close it on the request's thread.

    While a thread is held for the request, the client may take `patience` seconds for a part.
    """
    try:
        # A synchronous iterator must run, and end, on the thread on which it began.
        async with nullcontext() if response.is_async else thread.block():
            try:
                await client.while_there(_send_stream, client, response, _Hurried(client, thread, patience))
            finally:
                await at_the_end(visit_thread, response.close)
    finally:
        if not response.closed:  # no thread was to be had for the block
            await at_the_end(visit_thread, response.close)


async def _send_stream(client: Client, response: StreamingHttpResponse, hurried: _Hurried) -> None:
    await client.send(_start(response))
    # The answer to HEAD has no body; an endless iterator would never end.
    if client.scope["method"] != "HEAD":
        if response.is_async:
            await _send_async_parts(hurried, response)
        else:
            await _send_parts(hurried, response, run_in_thread)
    await client.send({"type": "http.response.body"})


async def _send_parts(client: Client | _Hurried, response: StreamingHttpResponse, run: Run) -> None:
    parts: Iterator[bytes] = iter(response)
    while part := await run(_next_part, parts):
        await client.send({"type": "http.response.body", "body": part, "more_body": True})


def _next_part(parts: Iterator[bytes]) -> bytes:
    """The next part that is not empty; b"" at the end."""
    return next(filter(None, parts), b"")


async def _send_async_parts(client: _Hurried, response: StreamingHttpResponse) -> None:
    # Iterating over the response itself would wrap this twice in generators that do not close it.
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
    """A client that must take each message in time while its request holds a thread."""

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
            "cutting %s: the client took nothing for %g seconds (SEND_TIMEOUT), and its stream holds a thread",
            describe(self._client.scope),
            self._patience,
        )
        raise ClientLeft


async def at_the_end(run: Run, function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Make a call that must be made: shielded from cancellation, and not refused by a full queue for threads."""
    before = never_refused.set(True)
    try:
        with trio.CancelScope(shield=True):
            result: T = await run(function, *args)
    finally:
        never_refused.reset(before)
    return result
