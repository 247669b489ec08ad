"""Messages to groups that are sent at the same time, as one command.

Ten tasks that send at once would else have Redis begin and end a script ten times, look ten times at the number of this
process' last command, and look ten times at each inbox: that was more than half of all its work.
"""

from __future__ import annotations

from .connection import Argument
from .keys import ShardKeys
from .scripts import GROUP_SEND

#: A message on its way to a group: its number (see :class:`ShardKeys`), the group's key, the blob.
Part = tuple[int, str, bytes]


class GroupSends:
    """Makes one command of several messages.

    Args:
        keys: of the shard, for this process.
        inbox_capacity: of every process.
    """

    def __init__(self, keys: ShardKeys, inbox_capacity: int) -> None:
        self._keys = keys
        self._inbox_capacity = inbox_capacity

    def part(self, group: str, blob: bytes) -> Part:
        """A message, with a number. It must be given to the link at once; see :meth:`ShardKeys.stamp`."""
        return self._keys.next_number(), self._keys.group(group), blob

    def __call__(self, messages: list[Part]) -> tuple[Argument, ...]:
        """The command that sends them, in order."""
        keys = self._keys
        places: dict[str, int] = {}
        rows: list[Argument] = []
        for number, group, blob in messages:
            rows += (number, places.setdefault(group, len(places) + 2), blob)
        arguments = (keys.process, keys.memory_ms, keys.inboxes, self._inbox_capacity, keys.lease_ms, *rows)
        return GROUP_SEND(keys.done, *places, args=arguments)
