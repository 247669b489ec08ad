"""The topics of a project: those to which its routes lead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..routing import ProtocolTypeRouter, URLRouter
from .socket import applications
from .topic import Topic


def topics_of(application: Any) -> dict[type[Topic], list[str]]:
    """The topics of an application, with the addresses of their sockets.

    If the routes lead to no :class:`TopicSocket`, as a middleware hides it, they are those of all sockets that were
    made, without an address.
    """
    found: dict[type[Topic], list[str]] = {}
    for address, topics in _sockets(application, ""):
        for topic in topics:
            found.setdefault(topic, []).append(f"/{address}")
    if not found:
        made = [topic for each in applications for topic in each.topics]
        found = {topic: [] for topic in sorted(made, key=lambda topic: (topic.__module__, topic.__qualname__))}
    return found


def _sockets(application: Any, address: str) -> Iterator[tuple[str, Iterable[type[Topic]]]]:
    if application in applications:
        yield address, application.topics
    elif isinstance(application, ProtocolTypeRouter):
        yield from _sockets(application.application_mapping.get("websocket"), address)
    elif isinstance(application, URLRouter):
        yield from _routed(application._table, address)
    elif application is not None:  # a middleware
        inner = getattr(application, "inner", None) or getattr(application, "application", None)
        yield from _sockets(inner, address)


def _routed(table: Iterable[Any], address: str) -> Iterator[tuple[str, Iterable[type[Topic]]]]:
    for route in table:
        path = f"{address}{route.pattern}"
        if route.application is None:
            yield from _routed(route.inner, path)
        else:
            yield from _sockets(route.application, path)
