"""Read a request's body into a file.

Most bodies come in one part, which becomes the file. A longer body is kept in memory up to
``FILE_UPLOAD_MAX_MEMORY_SIZE``; beyond that a thread writes it to a temporary file. A body that is announced as too
long is not read. Of any other the bytes are counted: the client's ``Content-Length`` cannot be trusted.
"""

from __future__ import annotations

import contextlib
import errno
import io
import tempfile
from collections.abc import Callable
from typing import IO, TypeVar

import trio
from django.conf import settings

from .._asgi.protocol import announced_length
from .._threads.database import run_in_thread
from ..exceptions import RequestBodyNotStored, RequestBodyTooLarge, RequestTimeout
from .client import Client

#: The disk, the user's share of it, or the largest file that the process may write is full.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

#: The errors of :func:`read_body`.
REFUSED = (RequestBodyTooLarge, RequestTimeout, RequestBodyNotStored)

T = TypeVar("T")

#: Bytes per second; a slower body is taken for an attack. It is a tenth of the slowest mobile network's speed.
SLOWEST = 500

#: Bytes that are written to the disk by one call to a thread.
_AT_ONCE = 2**20

_TOO_LARGE = "the request body is longer than {} bytes (MAX_UPLOAD_SIZE); got {}"


async def read_body(client: Client, limit: int, timeout: float) -> IO[bytes]:
    """Read the body, of `limit` bytes at most, and return it as a file.

    It may take `timeout` seconds, and one second more for each :data:`SLOWEST` bytes that have come.
    """
    if (announced := announced_length(client.scope)) > limit:
        raise RequestBodyTooLarge(_TOO_LARGE.format(limit, f"Content-Length: {announced}"))
    with trio.move_on_after(timeout) as scope:
        event = await client.next_part()
        part = event.get("body", b"")
        if not event.get("more_body"):
            _check_size(len(part), limit)
            return io.BytesIO(part)
        return await _read_on(client, limit, part, scope)
    raise RequestTimeout(f"the request body did not come at {SLOWEST} bytes/s after {timeout:g} seconds (BODY_TIMEOUT)")


async def _read_on(client: Client, limit: int, part: bytes, scope: trio.CancelScope) -> IO[bytes]:
    """Read the rest of a body after its first part."""
    in_memory = settings.FILE_UPLOAD_MAX_MEMORY_SIZE
    # The request owns it, and closes it with the response.
    body: IO[bytes] = tempfile.SpooledTemporaryFile(  # noqa: SIM115
        max_size=in_memory or 1,  # 0 would mean: never
        mode="w+b",
        dir=settings.FILE_UPLOAD_TEMP_DIR,
    )
    size, more, waiting = 0, True, bytearray()
    try:
        while True:
            size += len(part)
            _check_size(size, limit)
            scope.deadline += len(part) / SLOWEST
            if size <= in_memory:
                body.write(part)
            else:
                waiting += part
                if len(waiting) >= _AT_ONCE or not more:
                    await _on_disk(body.write, waiting)
                    waiting.clear()
            if not more:
                break
            event = await client.next_part()
            part, more = event.get("body", b""), event.get("more_body", False)
        if size > in_memory:
            await _on_disk(body.seek, 0)
        else:
            body.seek(0)
    except BaseException:
        with contextlib.suppress(OSError):  # of the bytes that it still has to write
            body.close()
        raise
    return body


async def _on_disk(call: Callable[[T], object], value: T) -> None:
    """Make a call that may write to the disk, on a thread. Cancellation: a call that has begun is completed."""
    try:
        await run_in_thread(call, value)
    except OSError as error:
        folder = settings.FILE_UPLOAD_TEMP_DIR or tempfile.gettempdir()
        raise RequestBodyNotStored(
            f"cannot write a request body to {folder} (FILE_UPLOAD_TEMP_DIR): {error.strerror or error}"
        ) from error


def refusal(error: Exception) -> tuple[int, str]:
    """The status and text of the answer to one of :data:`REFUSED`."""
    if isinstance(error, RequestBodyTooLarge):
        return 413, "The request body is too large."
    if isinstance(error, RequestTimeout):
        return 408, "The request body did not come in time."
    # The disk has no room, or another fault.
    return 507 if getattr(error.__cause__, "errno", None) in _NO_ROOM else 500, "The request body could not be stored."


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise RequestBodyTooLarge(_TOO_LARGE.format(limit, f"at least {size}"))
