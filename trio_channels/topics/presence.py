"""Presence in the form that the clients of the protocol know: ``presence_state`` and ``presence_diff``.

A state is ``{key: {"metas": [{"phx_ref": ..., ...}]}}``: one meta for each tracking of the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._asgi.protocol import Message
from . import frames

STATE, DIFF = "presence_state", "presence_diff"

#: The type of the channel layer messages that tell of changes.
CHANGE = "presence.diff"


def state_frame(topic: str, state: Mapping[str, list[dict[str, Any]]]) -> Message:
    """The message with which a client learns of everybody."""
    return frames.broadcast(topic, STATE, _by_key(state))


def diff_frame(topic: str, change: Message) -> Message:
    """The message with which a client learns of a change."""
    joins, leaves = _by_key(change["joins"]), _by_key(change["leaves"])
    return frames.broadcast(topic, DIFF, {"joins": joins, "leaves": leaves})


def _by_key(metas_by_key: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {key: {"metas": [_meta(meta) for meta in metas]} for key, metas in metas_by_key.items()}


def _meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: value for name, value in meta.items() if name != "ref"}, "phx_ref": meta["ref"]}
