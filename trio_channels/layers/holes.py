"""Holes: places in a mailbox where messages are missing."""

from __future__ import annotations

#: A place where messages are missing: reason -> number of messages, or None where it is not known.
Hole = dict[str, int | None]


def merge(hole: Hole, more: Hole) -> None:
    """Add the counts of one hole to another; None stays None."""
    for reason, lost in more.items():
        before = hole.get(reason, 0)
        hole[reason] = None if before is None or lost is None else before + lost
