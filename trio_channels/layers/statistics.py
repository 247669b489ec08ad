"""A snapshot of the figures of a channel layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerStatistics:
    """A snapshot of one channel layer in this process.

    Args:
        channels: mailboxes that exist now.
        groups: groups with at least one member now.
        memberships: pairs of group and member now.
        waiting: messages in mailboxes now.
        sent: messages accepted by ``send`` since the layer was made.
        group_sent: messages accepted by ``group_send``.
        delivered: messages taken out of mailboxes.
        dropped: messages that a full mailbox lost.
        expired: messages that waited longer than the layer's expiry.
        full: ``send`` calls refused with ``ChannelFull``.
        gone: messages for a process-local channel that does not exist, or no longer exists.
        recovered: joins of a group with history that went on from the given position.
        not_recovered: joins whose position could not be recovered.
        histories: groups whose history has messages now; None if only the backend knows.
        kept: messages in these histories now; None if only the backend knows.
        tracked: keys that the connections of this process track now.
        healthy: whether the layer works. False after its tasks crashed repeatedly: the layer has ended its connections
            and accepts no new ones, and the process should be replaced. An outage of the backend leaves it True.
        waited: messages that waited in a mailbox, because their receiver was busy when they came.
    """

    channels: int
    groups: int
    memberships: int
    waiting: int
    sent: int
    group_sent: int
    delivered: int
    dropped: int
    expired: int
    full: int
    gone: int
    recovered: int = 0
    not_recovered: int = 0
    histories: int | None = 0
    kept: int | None = 0
    healthy: bool = True
    waited: int = 0
    tracked: int = 0
