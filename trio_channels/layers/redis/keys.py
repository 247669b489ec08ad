"""The keys of one shard for one process, and the numbers of its commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable

#: Seconds after which Redis forgets a process whose reader is silent: its inbox and everything else it has.
LEASE = 30.0
#: Leases after which Redis forgets the members of a group, unless a process renews it: by then all of them are dead.
GROUP_LEASES = 2


class ShardKeys:
    """The names of the keys of a shard.

    Args:
        tag: ``{prefix:shard}``, the hash tag of all keys.
        process: this process' id.
        next_number: counts this process' commands.
        timeout: seconds for which a command may be sent again.

    Attributes:
        inboxes: the common prefix of all inboxes.
        inbox: the inbox of this process, a stream.
        state: a hash of counters about that inbox.
        done: the number of the last command of this process that Redis carried out.
        refused: the latest refused messages of this process.
        process: this process' id.
        next_number: counts this process' commands; see :meth:`stamp`.
        lease_ms: milliseconds for which an inbox lives without its reader.
        memory_ms: milliseconds for which Redis remembers the number of a command.
    """

    def __init__(self, tag: str, process: str, next_number: Callable[[], int], timeout: float) -> None:
        self.tag = tag
        self.inboxes = f"{tag}:i:"
        self.inbox = f"{self.inboxes}{process}"
        self.state = f"{self.inbox}:state"
        self.done = f"{tag}:done:{process}"
        self.refused = f"{tag}:refused:{process}"
        self.lease_ms = int(LEASE * 1000)
        self.process = process
        self.next_number = next_number
        self.memory_ms = int(max(LEASE, 2 * timeout) * 1000)

    def __repr__(self) -> str:
        return f"<ShardKeys of {self.inbox}>"

    def group(self, name: str) -> str:
        """The key of a group: the set of the processes that have members."""
        return f"{self.tag}:g:{name}"

    def for_groups(self, names: Iterable[str]) -> list[str]:
        """The keys of a membership command."""
        return [self.done, *map(self.group, names)]

    def stamp(self) -> tuple[str, int, int]:
        """The first arguments of a numbered command: process, number, and milliseconds for which Redis remembers it.

        Call the pipeline at once, without letting other tasks run: the numbers must reach Redis in order, as it skips
        a command whose number is not higher than the last one.
        """
        return self.process, self.next_number(), self.memory_ms
