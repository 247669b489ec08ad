"""The keys of one shard as one process uses them, and the numbers of its commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable

#: Seconds for which an inbox, and what else there is of a process, lives without its reader.
LEASE = 30.0
#: Leases after which Redis forgets who is in a group, unless somebody renews it: all processes in it are dead then.
GROUP_LEASES = 2


class ShardKeys:
    """Names of keys.

    Args:
        tag: ``{prefix:shard}``, the hash tag of all of them.
        process: this process' id.
        next_number: counts this process' commands.
        timeout: seconds for which a command may be sent again.

    Attributes:
        inbox: this process' stream.
        state: what is known of that stream.
        done: the number of this process' last command that was carried out.
        refused: the latest messages of this process that were refused.
        lease_ms: for which an inbox lives without its reader.
        process: this process' id.
        next_number: counts this process' commands; see :meth:`stamp`.
        memory_ms: for which a number is remembered.
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
        """Where Redis keeps which processes are in a group."""
        return f"{self.tag}:g:{name}"

    def for_groups(self, names: Iterable[str]) -> list[str]:
        """The keys of a membership command."""
        return [self.done, *map(self.group, names)]

    def stamp(self) -> tuple[str, int, int]:
        """What tells a command from all others: its process, its number, and ms for which that is remembered.

        The command must be given to the link at once, without letting other tasks run: commands are known to have
        been carried out by a higher number's having been.
        """
        return self.process, self.next_number(), self.memory_ms
