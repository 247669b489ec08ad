"""The names of streams: groups of the channel layer, and topics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from ..exceptions import ConfigurationError
from ..layers.names import check_group_name
from ..topics.broadcasting import group_of
from ..topics.frames import MAX_FIELD

#: The most names of one stream: an event's id has a position for each, and must fit into a request's head.
MOST = 50


def group_for(name: str) -> str:
    """The group of a name: a name with a colon is a topic's, any other a group's.

    Raises:
        ConfigurationError: a topic's name is too long.
        InvalidNameError: it is no name of a group.
    """
    if isinstance(cast(object, name), str) and ":" in name:
        if len(name) > MAX_FIELD:
            raise ConfigurationError(f"the name of a topic has at most {MAX_FIELD} characters; got {name!r:.300}")
        return group_of(name)
    check_group_name(name)
    return name


def checked(names: Iterable[str]) -> tuple[str, ...]:
    """The names of a stream, each once.

    Raises:
        ConfigurationError: there is none, there are too many, or they are a single str.
        InvalidNameError: one of them is not valid.
    """
    given = () if isinstance(names, str) else tuple(dict.fromkeys(names))
    if not 0 < len(given) <= MOST:
        raise ConfigurationError(
            f"an event stream expects a list of 1 to {MOST} groups or topics; "
            f"got {names if isinstance(names, str) else len(given)!r}"
        )
    for name in given:
        group_for(name)
    return given
