"""Helpers shared by the tests of event streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.test import override_settings
from django.urls import path

from trio_channels.asgi import get_asgi_application
from trio_channels.event_stream import EventStream
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.testing import HttpCommunicator

urlpatterns: list[Any] = []


def kept(messages: int = 100, **options: Any) -> InMemoryChannelLayer:
    """A layer in which groups have a history, except those that begin with "b"."""
    pattern = {"messages": messages, "seconds": 3600.0}
    return InMemoryChannelLayer(history={"[!b]*": pattern}, **options)


@contextmanager
def as_view(cls: type[EventStream] = EventStream, **options: Any) -> Iterator[Any]:
    """A stream as a view of a Django project."""
    urlpatterns[:] = [path("events/", cls.as_view(**options), name="trio_stream")]
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[]):
        yield get_asgi_application()


@contextmanager
def as_asgi(cls: type[EventStream] = EventStream, **options: Any) -> Iterator[Any]:
    """A stream as an ASGI application."""
    yield cls.as_asgi(**options)


BOTH = [as_view, as_asgi]


def visit(application: Any, query: str = "", last: str | None = None) -> HttpCommunicator:
    """A client; with `last`, it comes back with its last event id."""
    headers = [] if last is None else [(b"last-event-id", last.encode())]
    communicator = HttpCommunicator(application, "GET", f"/events/{query}", headers=headers)
    communicator.timeout = 30
    return communicator


def told(event: Any) -> tuple[str, Any]:
    """The name and the data of an event."""
    return event.event, event.json()
