"""The messages of a :meth:`~trio_channels.layers.base.ChannelLayer.subscribe` block."""

from __future__ import annotations

from collections.abc import Awaitable

from .._asgi.protocol import Message
from ..exceptions import ChannelLayerUnavailable, MailboxOverflow
from .history import Recovery
from .mailbox import Mailbox
from .message import Gap


class Subscription:
    """The messages of a :meth:`~trio_channels.layers.base.ChannelLayer.subscribe` block, as an async iterator.

    Attributes:
        recovery: the result of joining each group: whether its position was recovered, and its newest position.
    """

    def __init__(self, mailbox: Mailbox, recovery: dict[str, Recovery]) -> None:
        self._mailbox = mailbox
        self.recovery = recovery
        mailbox.end = _end_of_subscription

    def __repr__(self) -> str:
        return f"<Subscription to {sorted(self._mailbox.groups)} through {self._mailbox!r}>"

    def __aiter__(self) -> Subscription:
        return self

    def __anext__(self) -> Awaitable[Message | Gap]:
        # Not a coroutine function: that would be one more coroutine to resume per subscriber and message.
        mailbox = self._mailbox
        if mailbox.overflowed:
            raise MailboxOverflow(
                f"a subscriber fell more than {mailbox.capacity} messages behind: read faster, subscribe with "
                f"overflow='drop_oldest' or 'drop_newest', or raise the layer's capacity"
            )
        return mailbox


def _end_of_subscription(failure: str | None) -> Exception:
    if failure is None:
        return StopAsyncIteration()
    return ChannelLayerUnavailable(f"the channel layer is broken: {failure}")
