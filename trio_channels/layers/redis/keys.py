"""The keys of one shard for one process, and the numbers of its commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable

#: Seconds after which Redis forgets a process whose reader is silent: its inbox and everything else it has.
LEASE = 30.0
#: Leases after which Redis forgets the members of a group, unless a process renews it: by then all of them are dead.
GROUP_LEASES = 2


class ShardKeys:
    """The names of the keys of a shard."""

    def __init__(self, tag: str, process: str, next_number: Callable[[], int], timeout: float) -> None:
        self.tag = tag
        self.inboxes = f"{tag}:i:"
        self.inbox = f"{self.inboxes}{process}"  # a stream
        self.state = f"{self.inbox}:state"  # counters about the inbox
        self.done = f"{tag}:done:{process}"  # the number of the last command that Redis carried out
        self.refused = f"{tag}:refused:{process}"  # the latest refused messages of this process
        self.epoch = f"{tag}:epoch"  # of the shard's histories; a flush leaves it
        self.lease_ms = int(LEASE * 1000)
        self.process = process
        self.next_number = next_number
        self.memory_ms = int(max(LEASE, 2 * timeout) * 1000)  # for the number of a command, which may come again

    def __repr__(self) -> str:
        return f"<ShardKeys of {self.inbox}>"

    def group(self, name: str) -> str:
        """The key of a group: a hash of the processes that have members, and the generations of their memberships."""
        return f"{self.tag}:g:{name}"

    def history(self, name: str) -> str:
        """The key of a group's history, a stream."""
        return f"{self.tag}:h:{name}"

    def noted(self, identity: bytes) -> str:
        """The key of the note that a message with that identity has been sent, and where its history has it."""
        return f"{self.tag}:once:{identity.hex()}"

    def presence(self, group: str) -> str:
        """The key of a group's presence: a hash of the references of trackings, and their keys and metas."""
        return f"{self.tag}:p:{group}"

    def for_groups(self, names: Iterable[str]) -> list[str]:
        """The keys of a membership command."""
        return [self.done, *map(self.group, names)]

    def stamp(self) -> tuple[str, int, int]:
        """The first arguments of a numbered command: process, number, milliseconds for which Redis remembers it."""
        # The caller lets no other task run before it calls the pipeline: the numbers must reach Redis in order, as it
        # skips a command whose number is not higher than the last one.
        return self.process, self.next_number(), self.memory_ms
