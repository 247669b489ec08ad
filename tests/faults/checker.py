"""The checker of every delivery test: it compares published and received messages; every hole needs an explanation.

Each publisher stamps its messages with (publisher, group, n), n counting from 0 per publisher and group. Each receiver
shows the checker its items, in order: messages, gap events, its end. For each receiver, group and publisher:

- each message that comes was published, and comes once, in the order of publication;
- every hole is explained: by a publish that raised, by a gap shown between the messages around the hole (one that says
  how many must account for exactly so many, over all publishers), or by the receiver's close, after which nothing
  comes and everything may be missing.

The checker knows nothing of any backend. It notes when a receiver joins: earlier messages are not the receiver's holes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GAP = "channel.layer.gap"

Stream = tuple[str, str]  # publisher, group


@dataclass
class Published:
    """The messages that one publisher has tried to send to one group."""

    count: int = 0
    raised: set[int] = field(default_factory=set)


class DeliveryChecker:
    """The common record of one test's publishers and receivers."""

    def __init__(self) -> None:
        self.streams: defaultdict[Stream, Published] = defaultdict(Published)
        self.receivers: list[Receiver] = []

    def stamp(self, publisher: str, group: str, kind: str = "stamped.message") -> dict[str, Any]:
        """The next message of a publisher to a group; to be published by the caller, at once."""
        stream = self.streams[publisher, group]
        stream.count += 1
        return {"type": kind, "publisher": publisher, "group": group, "n": stream.count - 1}

    def raised(self, message: Mapping[str, Any]) -> None:
        """The publish of this message raised: it may have come to some receivers, or to none."""
        self.streams[message["publisher"], message["group"]].raised.add(message["n"])

    def receiver(self, name: str, *groups: str) -> Receiver:
        """A new receiver that is a member of these groups from now on."""
        receiver = Receiver(self, name, groups)
        self.receivers.append(receiver)
        return receiver

    def faults(self) -> list[str]:
        """Everything that is wrong, once nothing more is on its way; empty if all is well."""
        return [f"{receiver.name}: {fault}" for receiver in self.receivers for fault in receiver.faults()]


class Receiver:
    """The items that one receiver has been given, in order.

    Attributes:
        closed: whether it was told that it will get no more; a later item is a fault.
    """

    def __init__(self, checker: DeliveryChecker, name: str, groups: tuple[str, ...]) -> None:
        self.name = name
        self.closed = False
        self._checker = checker
        self._groups = groups
        self._start = {stream: published.count for stream, published in checker.streams.items()}
        self._items: list[Mapping[str, Any]] = []
        self._late: list[Mapping[str, Any]] = []

    def got(self, item: Mapping[str, Any]) -> None:
        """A message or a gap event came."""
        (self._late if self.closed else self._items).append(item)

    def close(self) -> None:
        """The connection was closed, or its subscription raised: that explains all holes from here on."""
        self.closed = True

    @property
    def messages(self) -> int:
        """How many stamped messages came."""
        return sum(item["type"] != GAP for item in self._items)

    @property
    def lost(self) -> int | None:
        """How many messages the gaps say are missing; None where one of them does not know."""
        counts = [item["lost"] for item in self._items if item["type"] == GAP]
        return None if None in counts else sum(counts)

    def faults(self) -> list[str]:
        """The faults in the receiver's items."""
        faults = [f"{_show(item)} came after the close" for item in self._late]
        faults += self._order_faults()
        return faults or self._hole_faults()

    def _order_faults(self) -> list[str]:
        faults = []
        last: dict[Stream, int] = {}
        for item in self._items:
            if item["type"] == GAP:
                continue
            stream = item["publisher"], item["group"]
            n, before = item["n"], last.get(stream, -1)
            if n >= self._checker.streams[stream].count or item["group"] not in self._groups:
                faults.append(f"{_show(item)} was never sent to it")
            elif n == before:
                faults.append(f"{_show(item)} came twice")
            elif n < before:
                faults.append(f"{_show(item)} came after number {before}")
            last[stream] = max(n, before)
        return faults

    def _hole_faults(self) -> list[str]:
        """Each missing message must have a gap in the place where it is missing.

        The place is anywhere between the two messages of the same stream that came before and after the missing one.
        At least one gap must stand there. Gaps that count must add up: in all, as many messages are missing as the
        gaps say.
        """
        faults: list[str] = []
        missing_total = 0
        unsure = 0  # publishes that raised: lost or not, nobody can tell
        for stream, published in list(self._checker.streams.items()):
            if stream[1] not in self._groups:
                continue
            next_n = self._start.get(stream, 0)
            gap_seen = False
            for item in self._items:
                if item["type"] == GAP:
                    gap_seen = True
                elif (item["publisher"], item["group"]) == stream and item["n"] >= next_n:
                    hole = [n for n in range(next_n, item["n"]) if n not in published.raised]
                    unsure += item["n"] - next_n - len(hole)
                    missing_total += len(hole)
                    if hole and not gap_seen:
                        faults.append(f"{_holes(stream, hole)} missing before number {item['n']}, without a gap")
                    next_n, gap_seen = item["n"] + 1, False
            tail = [n for n in range(next_n, published.count) if n not in published.raised]
            unsure += published.count - next_n - len(tail)
            if not self.closed:
                missing_total += len(tail)
                if tail and not gap_seen:
                    faults.append(f"{_holes(stream, tail)} missing at the end, without a gap or a close")
        lost = self.lost
        if lost is not None and not faults and not self._adds_up(lost, missing_total, unsure):
            faults.append(f"{missing_total} messages are missing, the gaps say {lost}")
        return faults

    def _adds_up(self, lost: int, missing: int, unsure: int) -> bool:
        if self.closed:  # a gap may count messages of the tail; `missing` does not
            return lost >= missing
        return missing <= lost <= missing + unsure


def _show(item: Mapping[str, Any]) -> str:
    if item["type"] == GAP:
        return f"a gap of {item['lost']}"
    return f"number {item['n']} of {item['publisher']} to {item['group']}"


def _holes(stream: Stream, numbers: list[int]) -> str:
    return f"{len(numbers)} of {stream[0]} to {stream[1]} ({numbers[0]} to {numbers[-1]})"
