"""The open connections of a Trio run: counted for health checks, and found when somebody else closes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol

import trio

from .._asgi.protocol import Scope


def primary_key(user: Any) -> Any:
    """The primary key of Django's user; None without one."""
    try:
        return getattr(user, "pk", None)
    except Exception:  # a lazy user of another middleware, whose query is not allowed on the Trio thread
        return None


class Live(Protocol):
    """An open connection."""

    scope: Scope
    mailbox: Any  # of its channel, if it has one

    @property
    def user(self) -> Any:
        """Django's user, if it is known."""

    @property
    def session(self) -> Any:
        """Django's session, if it is known."""

    def has_task(self, task: trio.lowlevel.Task | None) -> bool:
        """Whether a task is one of the application's."""

    def close_from_outside(self, code: int, reason: str) -> bool:
        """Close it soon, whatever the application does. Returns whether it is not ending already."""


_connections_of_run: trio.lowlevel.RunVar[dict[str, dict[Live, float]]] = trio.lowlevel.RunVar(
    "trio_channels connections"
)


def connections_of(kind: str) -> dict[Live, float]:
    """The open connections of one scope type in this Trio run, with their beginnings; each adds and removes itself."""
    try:
        by_kind = _connections_of_run.get()
    except LookupError:
        by_kind = {}
        _connections_of_run.set(by_kind)
    return by_kind.setdefault(kind, {})


def connections() -> dict[str, int]:
    """The number of open connections in this Trio run, by scope type."""
    return {kind: len(those) for kind, those in _connections_of_run.get({}).items()}


def begun() -> list[tuple[Live, float]]:
    """The open connections in this Trio run, and the Trio times at which they began; a copy."""
    return [pair for those in _connections_of_run.get({}).values() for pair in those.items()]


def live() -> Iterator[Live]:
    """The open connections of clients in this Trio run."""
    for kind, those in _connections_of_run.get({}).items():
        if kind in ("http", "websocket"):
            yield from those


def having(mailboxes: Collection[Any]) -> Callable[[Live], bool]:
    """Whether a connection has one of these mailboxes, or a task that subscribes with one."""
    owned = {id(mailbox) for mailbox in mailboxes}
    subscribers = [mailbox.subscriber for mailbox in mailboxes if mailbox.subscriber is not None]

    def has_one(connection: Live) -> bool:
        return id(connection.mailbox) in owned or any(connection.has_task(task) for task in subscribers)

    return has_one


def belongs_to(task: trio.lowlevel.Task | None, nursery: trio.Nursery | None) -> bool:
    """Whether a task runs in a nursery, or in one that is inside it."""
    while task is not None and nursery is not None:
        if task.parent_nursery is nursery:
            return True
        task = task.parent_nursery.parent_task if task.parent_nursery is not None else None
    return False
