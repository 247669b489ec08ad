"""What a client may send to a topic, and what it gets: from the annotations of the topic's methods."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from ..exceptions import ConfigurationError
from . import presence
from .handlers import Kind, annotations_of
from .patterns import Pattern
from .topic import Topic

#: The schema of None, which is sent as the empty object.
EMPTY = {"type": "object", "properties": {}, "additionalProperties": False}
_NULL = {"type": "null"}


class PresenceEntry(msgspec.Struct):
    """One key that is present: a meta for each client."""

    metas: list[dict[str, Any]]


class PresenceDiff(msgspec.Struct):
    """The keys that came and went."""

    joins: dict[str, PresenceEntry]
    leaves: dict[str, PresenceEntry]


class Exchange(NamedTuple):
    """A join or a push, and the reply; with `streams`, any number of replies."""

    payload: Any
    reply: Any
    streams: bool = False


class Described(NamedTuple):
    """One class of topics.

    Args:
        name: its name; with that of its module, if another class has the same.
        sends: the types of the events that it sends.
        addresses: those of its sockets.
    """

    name: str
    topic: type[Topic]
    pattern: Pattern
    join: Exchange
    pushes: dict[str, Exchange]
    sends: dict[str, Any]
    addresses: list[str]


class Schemas(NamedTuple):
    """The JSON schema of each type, and those that they refer to, by name."""

    by_type: dict[Any, dict[str, Any]]
    components: dict[str, Any]

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of a type."""
        return self.by_type[_hashable(kind)]

    def sent(self, kind: Any) -> dict[str, Any]:
        """The schema of a reply, or of an event, as the client gets it."""
        schema = self.of(kind)
        if schema == _NULL:
            return EMPTY
        if "anyOf" in schema:
            return {**schema, "anyOf": [EMPTY if each == _NULL else each for each in schema["anyOf"]]}
        return schema


def describe(topics: Mapping[type[Topic], list[str]]) -> list[Described]:
    """Describe classes of topics, with the addresses of their sockets."""
    names = [topic.__name__ for topic in topics]
    return [
        _describe(topic, addresses, topic.__name__ if names.count(topic.__name__) == 1 else _long_name(topic))
        for topic, addresses in topics.items()
    ]


def _long_name(topic: type[Topic]) -> str:
    return f"{topic.__module__}.{topic.__qualname__}".replace(".", "_").replace("<locals>", "")


def _describe(topic: type[Topic], addresses: list[str], name: str) -> Described:
    methods = topic._methods
    pushes = {
        event: _exchange(topic, handler.method, handler.kind is Kind.STREAM)
        for event, handler in sorted(methods.events.items())
    }
    sends = dict(sorted(topic.sends.items()))
    if topic.shows_presence:
        sends |= {presence.STATE: dict[str, PresenceEntry], presence.DIFF: PresenceDiff}
    pattern = Pattern(topic.pattern, topic.__name__)
    return Described(name, topic, pattern, _exchange(topic, "join", False), pushes, sends, addresses)


def _exchange(topic: type[Topic], method: str, streams: bool) -> Exchange:
    payload, result = annotations_of(topic, method)
    if streams:
        arguments = typing.get_args(result)
        result = arguments[0] if arguments else Any
    return Exchange(payload, result, streams)


def schemas_of(described: Iterable[Described], ref_template: str) -> Schemas:
    """The schemas of all types.

    Raises:
        ConfigurationError: one of them has none.
    """
    places = {_hashable(kind): (kind, place) for each in described for kind, place in _types(each)}
    for kind, place in places.values():
        try:
            msgspec.json.schema(kind)
        except TypeError as error:
            raise ConfigurationError(
                f"the type of {place} has no schema: {error}. Annotate it with a msgspec.Struct, a dict or another "
                f"type that msgspec knows"
            ) from error
    kinds = [kind for kind, _ in places.values()]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=ref_template)
    return Schemas(dict(zip(places, schemas, strict=True)), dict(sorted(components.items())))


def _hashable(kind: Any) -> Any:
    try:
        hash(kind)
    except TypeError:  # an Annotated with a dict
        return repr(kind)
    return kind


def _types(described: Described) -> Iterator[tuple[Any, str]]:
    """The types of a topic, and where each is."""
    name = described.topic.__name__
    for event, exchange in {"join": described.join, **described.pushes}.items():
        yield exchange.payload, f"the payload of {name} {event!r}"
        yield exchange.reply, f"the reply of {name} {event!r}"
    for event, kind in described.sends.items():
        yield kind, f"{name}.sends[{event!r}]"
