"""The reports that the servers of P7 and P8 get from their client processes."""

from __future__ import annotations

import trio


async def wait_for_line(stdout: trio.abc.ReceiveStream | None, expected: bytes) -> None:
    """Wait for a line from the clients. It may come in several pieces: an unbuffered Python writes two.

    Raises:
        RuntimeError: the clients wrote another line, or have ended.
    """
    line = b""
    while stdout is not None and not line.endswith(b"\n"):
        if not (more := await stdout.receive_some()):
            break
        line += more
    if line != expected:
        raise RuntimeError(f"expected the line {expected!r} from the clients; got {line!r}")
