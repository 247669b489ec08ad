"""The state of a presence after its messages."""

from __future__ import annotations

from typing import Any

import pytest

from trio_channels.client.frames import FrameError
from trio_channels.client.presence import PresenceState, after

ADA: PresenceState = {"ada": [{"phx_ref": "1"}]}


def metas(*refs: str) -> dict[str, Any]:
    return {"metas": [{"phx_ref": ref} for ref in refs]}


@pytest.mark.parametrize(
    ("joins", "leaves", "refs"),
    [
        ({}, {}, {"ada": ["1"]}),
        ({"ada": metas("2")}, {}, {"ada": ["1", "2"]}),
        ({"ada": metas("1")}, {}, {"ada": ["1"]}),
        ({"ada": metas("2")}, {"ada": metas("1")}, {"ada": ["2"]}),
        ({"bob": metas("3", "4")}, {"ada": metas("1")}, {"bob": ["3", "4"]}),
        ({}, {"ada": metas("7"), "nobody": metas("8")}, {"ada": ["1"]}),
    ],
)
def test_diff_changes_the_state(joins: Any, leaves: Any, refs: dict[str, list[str]]) -> None:
    state = after(ADA, "presence_diff", {"joins": joins, "leaves": leaves})
    assert {key: [meta["phx_ref"] for meta in metas] for key, metas in state.items()} == refs
    assert ADA == {"ada": [{"phx_ref": "1"}]}


def test_state_replaces_what_was_known() -> None:
    assert after(ADA, "presence_state", {"bob": metas("2")}) == {"bob": [{"phx_ref": "2"}]}


class Counted(str):
    """A reference that counts the comparisons."""

    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return super().__eq__(other)


def test_many_metas_are_not_compared_with_each_other() -> None:
    old, new = ({"ada": metas(*(Counted(f"{side}{n}") for n in range(1_000)))} for side in "ab")
    state = after(after({}, "presence_state", old), "presence_diff", {"joins": new, "leaves": old})
    assert state == {"ada": new["ada"]["metas"]}
    Counted.comparisons = 0
    after(state, "presence_diff", {"joins": old, "leaves": {}})
    assert Counted.comparisons < 10_000


@pytest.mark.parametrize("ref", [[], {}])
def test_reference_that_is_no_scalar_is_no_frame(ref: Any) -> None:
    with pytest.raises(FrameError, match="expected "):
        after(ADA, "presence_diff", {"joins": {"ada": {"metas": [{"phx_ref": ref}]}}})
