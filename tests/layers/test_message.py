"""Valid messages, and invalid ones, which always raise MessageNotEncodable."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_channels.exceptions import MessageNotEncodable
from trio_channels.layers.message import encode, round_trip

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), text, st.binary()
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20)
anything = st.recursive(
    st.one_of(
        scalars,
        st.text(),
        st.integers(),
        st.complex_numbers(),
        st.decimals(),
        st.datetimes(),
        st.uuids(),
        st.builds(object),
        st.builds(msgspec.Raw, st.binary()),
        st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary()),
    ),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.dictionaries(st.one_of(st.text(), st.integers(), st.binary(), st.none(), st.tuples(st.integers())), inner)
    ),
    max_leaves=10,
)


@dataclasses.dataclass(frozen=True)
class Point:
    x: int


class Kind(enum.StrEnum):
    TYPE = "type"


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@given(st.dictionaries(text, values, max_size=5))
def test_what_may_travel_arrives_as_it_was(message: dict[str, Any]) -> None:
    assert round_trip(message) == message


@given(st.one_of(st.dictionaries(st.text(), anything, max_size=5), anything))
def test_any_value_travels_or_is_refused_with_our_error(message: Any) -> None:
    try:
        assert isinstance(round_trip(message), dict)
    except MessageNotEncodable:
        pass


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(object(), id="an object"),
        pytest.param(2**64, id="an int of more than 64 bits"),
        pytest.param("\ud800", id="half a surrogate pair"),
        pytest.param(nested(100_000), id="nested too deeply"),
        pytest.param({Point(1): 1}, id="a key that becomes a dict"),
        pytest.param(msgspec.Raw(b"\xc1"), id="raw bytes that are no MessagePack"),
        pytest.param(msgspec.Raw(b"\x01\x02"), id="raw bytes that are two values"),
        pytest.param(msgspec.Raw(b"\xa1\xff"), id="raw text that is no UTF-8"),
        pytest.param(msgspec.msgpack.Ext(-1, b"x"), id="a timestamp that is none"),
    ],
)
@pytest.mark.parametrize("key", ["type", "value"])
def test_what_cannot_travel_is_refused(key: str, value: object) -> None:
    with pytest.raises(MessageNotEncodable, match="may hold None, bool"):
        round_trip({key: value})


def test_message_that_holds_itself_is_refused() -> None:
    message: dict[str, Any] = {"type": "loop"}
    message["self"] = message
    with pytest.raises(MessageNotEncodable, match="'loop'"):
        round_trip(message)


@pytest.mark.parametrize("message", [None, [], "text", 5, ("type", "x")], ids=repr)
def test_what_is_no_dict_is_refused(message: Any) -> None:
    with pytest.raises(MessageNotEncodable, match=f"must be a dict.*got {type(message).__name__}"):
        encode(message)


@pytest.mark.parametrize("key", [None, 5, b"type", ("a",)], ids=repr)
def test_keys_of_a_message_are_str(key: Any) -> None:
    with pytest.raises(MessageNotEncodable, match="keys of a channel layer message must be str"):
        encode({key: 1})


def test_nested_keys_may_be_other_than_str() -> None:
    message = {"type": "x", "by_id": {1: "a", None: "b", b"c": "d"}}
    assert round_trip(message) == message


def test_every_kind_of_dict_arrives_as_a_dict() -> None:
    for message in (collections.OrderedDict(a=1), collections.defaultdict(int, a=1)):
        assert type(round_trip(message)) is dict
    assert round_trip({Kind.TYPE: "x"}) == {"type": "x"}


def test_time_with_a_zone_arrives_as_a_time() -> None:
    now = datetime.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    assert round_trip({"at": now}) == {"at": now}


def test_nothing_of_the_original_is_shared() -> None:
    message = {"list": [[1]], "dict": {"a": {}}}
    copy = round_trip(message)
    copy["list"][0].append(2)
    copy["dict"]["a"]["b"] = 1
    assert message == {"list": [[1]], "dict": {"a": {}}}
