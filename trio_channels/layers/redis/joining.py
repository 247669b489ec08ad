"""Joining of a group with history: first join, then read, then drop the doubles."""

from __future__ import annotations

import trio

from ..history import KEY, NO_HISTORY, HistoryRule, Recovery
from ..hub import Hub
from ..joining import is_behind, outcome_of_join
from ..mailbox import Mailbox
from ..message import Envelope, Place
from .shard import Shard


async def join_with_history(
    hub: Hub, shard: Shard, group: str, mailbox: Mailbox, since: str | None, rule: HistoryRule, expiry: float
) -> Recovery:
    """Make a mailbox a member, and give it what it missed; see :meth:`ChannelLayer.group_add`.

    Raises:
        ChannelLayerUnavailable: Redis did not answer in time. The membership has not begun.

    Cancellation: the membership has not begun.
    """
    joining = hub.join_later(group, mailbox)
    try:
        await shard.memberships.wait_until_joined(group)
        found = await shard.history.read(group, rule, since, 0 if since is None else rule.messages)
    except BaseException:
        if hub.has_joining(group, joining):
            hub.leave(group, mailbox.name)
        raise
    if not hub.has_joining(group, joining):  # it has left, or was flushed, meanwhile
        return NO_HISTORY
    floor: Place | None = found.newest
    position, recovered = found.position, found.recovered
    skipped = joining.skipped
    if skipped is not None and is_behind(floor, skipped.place):
        floor, position, recovered = skipped.place, skipped.message[KEY]["position"], False
    missed = [
        Envelope(kept.message, trio.current_time() + expiry, place=kept.place, replayed=True)
        for kept in found.messages
        if recovered and mailbox.name not in kept.exclude
    ]
    recovery = Recovery(recovered, since if recovered else position, len(missed))
    joining.begin(floor, missed, outcome_of_join(hub.counters, since, recovery))
    return recovery
