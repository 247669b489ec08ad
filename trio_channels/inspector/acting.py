"""The acts of the admin's page: to send, to close, to retry. Each is logged with the user who does it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .._asgi.protocol import Message
from ..closing import CLOSED, close_channel, close_user
from ..layers import DEFAULT_CHANNEL_LAYER, channel_layers
from .report import printable

logger = logging.getLogger("trio_channels.inspector")

#: The acts, and their names on buttons.
ACTS = {
    "send_group": "Send to the group",
    "send_channel": "Send to the connection",
    "close_channel": "Close the connection",
    "close_user": "Close all connections of the user",
    "retry": "Retry dead letters",
}


@dataclass(frozen=True)
class Act:
    """An act that has been checked.

    Args:
        kind: one of :data:`ACTS`.
        target: a group, a channel name, a named channel, or the primary key of a user.
        layer: the alias of the channel layer.
        message: to be sent.
        code, reason: of the close.
        ids: of the dead letters; all if there is none.
    """

    kind: str
    target: str
    layer: str = DEFAULT_CHANNEL_LAYER
    message: Message = field(default_factory=dict)
    code: int = CLOSED
    reason: str = ""
    ids: Sequence[str] = ()

    def __str__(self) -> str:
        """The act in words; of a message only the type, as its content may be private."""
        target = printable(self.target)
        if self.kind in ("send_group", "send_channel"):
            to = "group" if self.kind == "send_group" else "connection"
            kind = printable(str(self.message.get("type", "")))
            return f"send a message of type '{kind}' to the {to} '{target}' of the layer '{self.layer}'"
        if self.kind == "retry":
            letters = f"dead letters {' '.join(self.ids)}" if self.ids else "all dead letters"
            return f"retry {letters} of the channel '{target}' of the layer '{self.layer}'"
        what = "the connection" if self.kind == "close_channel" else "all connections of the user"
        return f"close {what} '{target}' with {self.code}"

    async def perform(self) -> str:
        """Carry it out, and return what has happened.

        Raises:
            TrioChannelsError: it cannot be carried out, or only in part.

        Cancellation: it may have been carried out.
        """
        match self.kind:
            case "send_group":
                await channel_layers[self.layer].group_send(self.target, self.message)
                return "The message was sent to the group."
            case "send_channel":
                await channel_layers[self.layer].send(self.target, self.message)
                return "The message was sent to the connection."
            case "close_channel":
                await close_channel(self.target, self.code, self.reason)
                return "The connection is being closed."
            case "close_user":
                await close_user(self.target, self.code, self.reason)
                return "All connections of the user are being closed."
        count = await channel_layers[self.layer].work_queue(self.target).requeue(*self.ids)
        return f"{count} dead letter{' was' if count == 1 else 's were'} sent again."


def log(user: Any, act: Act, failure: Exception | None = None) -> None:
    """Log an act, or its failure, with the user."""
    name = printable(f"{user.get_username()} ({user.pk})")
    if failure is None:
        logger.info("staff: %s: %s", name, act)
    else:
        logger.warning("staff: %s: %s: failed: %s", name, act, failure)
