"""What the servers of P7 and P8 hear from their clients, which are processes of their own."""

from __future__ import annotations

import trio


async def answered(said: trio.abc.ReceiveStream | None, wanted: bytes) -> None:
    """Wait until the clients have said this line, in however many pieces (an unbuffered Python writes two).

    Raises:
        RuntimeError: they said another line, or have ended.
    """
    line = b""
    while said is not None and not line.endswith(b"\n"):
        if not (more := await said.receive_some()):
            break
        line += more
    if line != wanted:
        raise RuntimeError(f"expected {wanted!r} of the clients; got {line!r}")
