"""What a channel layer counts, in each Trio run that it is used in; the sums are its statistics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """What one layer has done so far; shared by its mailboxes."""

    sent: int = 0
    group_sent: int = 0
    delivered: int = 0
    dropped: int = 0
    expired: int = 0
    full: int = 0
    gone: int = 0
