"""Sending responses: whole ones, files and streams."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator
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
from .parts import JOINED, Parts, Run
from .ranges import FilePart

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

logger = logging.getLogger("django.request")

FILE_BLOCK = 256 * 1024  # bytes of a file that one call to a thread reads

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
        blocks: Iterator[bytes] = iter(response)
        while block := await run_in_thread(_next_block, blocks, neutral=True):
            await client.send(_part(block))
    await client.send({"type": "http.response.body"})


def _next_block(blocks: Iterator[bytes]) -> bytes:
    """The next part that is not empty; b"" at the end."""
    return next(filter(None, blocks), b"")


def _part(part: bytes) -> Message:
    """The message with a part of a response's body."""
    return {"type": "http.response.body", "body": part, "more_body": True}


async def stream(client: Client, response: StreamingHttpResponse, thread: Affinity, patience: float) -> None:
    """Send a response part by part, and close it on the request's thread.

    While a thread is held for the request, the client may take `patience` seconds for a part.
    """
    try:
        # A synchronous iterator must run, and end, on the thread on which it began.
        async with nullcontext() if response.is_async else thread.block():
            try:
                with client.streaming(), _Hurried(client, thread, patience) as hurried:
                    await client.while_there(_send_stream, client, response, hurried)
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
            # Other servers, and tests of views, get each part in a message of its own.
            joined = JOINED if client.is_direct else 0
            await Parts(response, run_in_thread, joined, hurried.rest).send(hurried.send_parts)
    await client.send({"type": "http.response.body"})


async def _send_async_parts(hurried: _Hurried, response: StreamingHttpResponse) -> None:
    # Iterating over the response itself would wrap this twice in generators that do not close it.
    parts: AsyncIterator[Any] = response._iterator  # type: ignore[attr-defined]
    try:
        async for part in parts:
            data = response.make_bytes(part)
            if data:
                await hurried.send(data)
                hurried.rest()
            else:
                await trio.lowlevel.checkpoint()
    finally:
        for each in (parts, getattr(response, "_trio_source", parts)):
            if hasattr(each, "aclose"):
                await each.aclose()


class _Hurried:
    """A client that must take each part in time while its request holds a thread: in the block it is cut otherwise."""

    def __init__(self, client: Client, thread: Affinity, patience: float) -> None:
        self._client = client
        self._thread = thread
        self._patience = patience
        self._scope = trio.CancelScope()
        self._renew_at = -math.inf

    def __enter__(self) -> _Hurried:
        self._scope.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._scope.__exit__(*exception)
        if self._scope.cancelled_caught:
            logger.warning(
                "cutting %s: the client took nothing for %g seconds (SEND_TIMEOUT), and its stream holds a thread",
                describe(self._client.scope),
                self._patience,
            )
            raise ClientLeft

    async def send(self, part: bytes) -> None:
        """Send a part."""
        self._renew()
        await self._client.send(_part(part))

    async def send_parts(self, parts: list[bytes]) -> None:
        """Send several parts; each has the time of one."""
        await self._client.send_parts(parts, self._renew)

    def _renew(self) -> None:
        # The time for a part may be an eighth longer: a new deadline for each would cost much.
        if self._thread.lease is not None and (now := trio.current_time()) >= self._renew_at:
            self._renew_at = now + self._patience / 8
            self._scope.deadline = now + self._patience * 9 / 8

    def rest(self) -> None:
        """Nothing is sent for a while, so the client need not take anything."""
        self._renew_at = -math.inf
        self._scope.deadline = math.inf


async def at_the_end(run: Run, function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Make a call that must be made: shielded from cancellation, and not refused by a full queue for threads."""
    before = never_refused.set(True)
    try:
        with trio.CancelScope(shield=True):
            result: T = await run(function, *args)
    finally:
        never_refused.reset(before)
    return result
