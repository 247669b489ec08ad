"""Who is in a topic, from the messages ``presence_state`` and ``presence_diff``."""

from __future__ import annotations

from typing import Any

from . import frames
from .frames import FrameError

#: By key, the metas: one for each tracking, with its reference as ``phx_ref``.
PresenceState = dict[str, list[dict[str, Any]]]


def after(state: PresenceState, event: str, payload: object) -> PresenceState:
    """The state after a message of presence; raises FrameError if the message is malformed."""
    if event == frames.STATE:
        return _metas_by_key(payload)
    if not isinstance(payload, dict):
        raise FrameError(f"expected an object as {frames.DIFF}")
    joins, leaves = _metas_by_key(payload.get("joins", {})), _metas_by_key(payload.get("leaves", {}))
    changed = dict(state)
    for key, metas in joins.items():
        changed[key] = _without(changed.get(key, []), metas) + metas
    for key, metas in leaves.items():
        left = _without(changed.pop(key, []), metas)
        if left:
            changed[key] = left
    return changed


def _without(metas: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[dict[str, Any]]:
    refs = {meta.get("phx_ref") for meta in others}
    return [meta for meta in metas if meta.get("phx_ref") not in refs]


def _metas_by_key(payload: object) -> PresenceState:
    if isinstance(payload, dict) and all(_has_metas(value) for value in payload.values()):
        return {key: value["metas"] for key, value in payload.items()}
    raise FrameError('expected {key: {"metas": [{"phx_ref": "..."}]}} in a message of presence')


def _has_metas(value: object) -> bool:
    metas = value.get("metas") if isinstance(value, dict) else None
    return isinstance(metas, list) and all(
        isinstance(meta, dict) and not isinstance(meta.get("phx_ref"), list | dict) for meta in metas
    )
