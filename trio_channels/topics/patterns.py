"""Patterns of topics: which class serves the topic ``room:lobby``, and with which arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.urls.resolvers import RoutePattern

from ..exceptions import ConfigurationError
from .frames import SOCKET_TOPIC

if TYPE_CHECKING:
    from .topic import Topic


#: An argument in a pattern: the converter, and the name.
_ARGUMENT = re.compile(r"<(?:([^:>]*):)?([^>]*)>")


class Pattern:
    """A pattern such as ``room:<slug:room>``, with Django's path converters.

    Raises:
        ConfigurationError: the pattern is not valid.
    """

    def __init__(self, pattern: object, place: str) -> None:
        if not isinstance(pattern, str) or not pattern or pattern == SOCKET_TOPIC:
            raise ConfigurationError(
                f"{place}.pattern must be a str such as 'room:<slug:room>', and not {SOCKET_TOPIC!r}, the topic of "
                f"heartbeats; got {pattern!r}"
            )
        self.text = pattern
        try:
            self._route = RoutePattern(pattern, is_endpoint=True)
            self._route.regex  # noqa: B018 - it is made, and checked, on its first use
        except (ImproperlyConfigured, re.error) as error:
            raise ConfigurationError(f"{place}.pattern: {error}") from error

    def match(self, topic: str) -> dict[str, Any] | None:
        """The arguments in a topic's name, or None if the name does not match."""
        found = self._route.match(topic)
        return None if found is None else dict(found[2])

    @property
    def arguments(self) -> dict[str, str]:
        """The arguments in the pattern, and the name of the converter of each."""
        return {name: kind or "str" for kind, name in _ARGUMENT.findall(self.text)}

    def filled(self, fill: Callable[[str], str]) -> str:
        """The pattern with something in the place of each argument, made from its name."""
        return _ARGUMENT.sub(lambda found: fill(found[2]), self.text)

    @property
    def shape(self) -> str:
        """The pattern without the names of its arguments: of two with one shape the second gets no topic."""
        return _ARGUMENT.sub(lambda found: f"<{found[1] or 'str'}>", self.text)


class Router:
    """The topics of a socket, by their patterns; the first that matches serves a topic.

    Raises:
        ConfigurationError: one of them is no Topic, has no pattern, or could never be reached.
    """

    def __init__(self, topics: Iterable[type[Topic]], base: type[Topic]) -> None:
        self._topics: list[tuple[Pattern, type[Topic]]] = []
        topic: Any
        for topic in topics:
            if not (isinstance(topic, type) and issubclass(topic, base)):
                raise ConfigurationError(f"the topics of a TopicSocket must be classes of Topic; got {topic!r}")
            if topic._pattern is None:
                raise ConfigurationError(f"{topic.__name__} has no pattern: set one, such as 'room:<slug:room>'")
            self._refuse_clash(topic, topic._pattern)
            self._topics.append((topic._pattern, topic))

    def _refuse_clash(self, topic: type[Topic], pattern: Pattern) -> None:
        for earlier, other in self._topics:
            if earlier.shape == pattern.shape or earlier.match(pattern.text) is not None:
                raise ConfigurationError(
                    f"no topic would reach {topic.__name__}: {other.__name__}, which comes before it, serves all of "
                    f"{pattern.text!r} with its pattern {earlier.text!r}. Change the order, or one of the patterns"
                )

    @property
    def topics(self) -> tuple[type[Topic], ...]:
        """The classes of topics, in their order."""
        return tuple(topic for _, topic in self._topics)

    def resolve(self, topic: str) -> tuple[type[Topic], dict[str, Any]] | None:
        """The class that serves a topic, and the arguments in its name; None if there is none."""
        for pattern, cls in self._topics:
            kwargs = pattern.match(topic)
            if kwargs is not None:
                return cls, kwargs
        return None
