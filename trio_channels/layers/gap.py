"""What a full mailbox does, and what stands for the messages that it lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands where messages are missing.

    Args:
        lost: how many, or None where the layer cannot know.
        reason: ``overflow`` (the receiver fell behind), ``expired`` (they waited longer than the layer's expiry),
            ``flushed``, or a reason of the backend's own.
    """

    lost: int | None
    reason: str

    def as_event(self) -> dict[str, Any]:
        """The gap as a consumer's ``channel_layer_gap`` handler receives it."""
        return {"type": "channel.layer.gap", "lost": self.lost, "reason": self.reason}
