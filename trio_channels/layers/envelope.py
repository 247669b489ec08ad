"""A message on its way: what is put into a mailbox, and what wakes its owner."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import TypeVar

import outcome

from .._asgi.protocol import Message

T = TypeVar("T")


class Envelope(outcome.Outcome[Message]):
    """One message on its way, shared by every mailbox that it was put into.

    It is what Trio wakes a waiting owner with, too: each unwraps its own shallow copy, and a fan-out makes no object
    for each of a thousand members.
    """

    __slots__ = ("expires_at", "message")
    # An outcome is equal to every other that has the same fields, of which it knows none here.
    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __init__(self, message: Message, expires_at: float) -> None:
        self.message = message
        self.expires_at = expires_at

    def __repr__(self) -> str:
        return f"<Envelope {self.message.get('type')!r:.60}>"

    def unwrap(self) -> Message:
        """A shallow copy of the message, as often as it is asked for."""
        return self.message.copy()

    def send(self, gen: Generator[T, Message, object]) -> T:
        """Send a copy into a generator."""
        return gen.send(self.unwrap())

    async def asend(self, agen: AsyncGenerator[T, Message]) -> T:
        """Send a copy into an async generator. Cancellation: the generator's."""
        return await agen.asend(self.unwrap())
