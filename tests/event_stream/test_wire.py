"""The form of events, read by the parser of the tests, and the ids of several groups."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_channels.event_stream import wire
from trio_channels.event_stream.positions import Positions
from trio_channels.testing.events import EventParser

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1)


@settings(max_examples=50)
@given(FIELD, TEXT, FIELD)
def test_event_is_read_as_it_was_written(event: str, data: str, event_id: str) -> None:
    (read,) = EventParser().feed(wire.block(event, data, event_id))
    assert (read.event, read.data, read.id) == (event, data.replace("\r\n", "\n").replace("\r", "\n"), event_id)


@pytest.mark.parametrize("value", ["", "a\nb", "a\rb", "a\0b"])
def test_fields_have_no_line_breaks(value: str) -> None:
    for make in (lambda: wire.block(value, ""), lambda: wire.block("a", "", value), lambda: wire.id_only(value)):
        with pytest.raises(ValueError, match="must not be empty, nor have a line break"):
            make()


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from("abcdef"), st.text("0123456789abcdef-", min_size=1, max_size=30)))
def test_id_holds_the_positions_of_all_groups(newest: dict[str, str]) -> None:
    groups = "abcdef"
    positions = Positions(groups, None)
    for group, position in newest.items():
        positions.move(group, position)
    event_id = positions.event_id
    assert (event_id is None) == (not newest)
    assert event_id is None or Positions(groups, event_id).given == dict.fromkeys(groups, "") | newest


@given(TEXT)
def test_any_id_may_be_given(event_id: str) -> None:
    for groups in ("a", "ab"):
        assert Positions(groups, event_id).given.keys() == set(groups)


@pytest.mark.parametrize("position", ["a,b", "a b", "a\n", "", "\u20ac", None])
def test_positions_that_no_id_can_have_are_left_out(position: str | None) -> None:
    positions = Positions("ab", None)
    positions.move("a", position)
    assert positions.event_id is None
