"""What a process tells of itself: its figures, its connections and its groups.

Text that comes from clients is escaped, secrets in queries are masked, and messages are not in it.
"""

from __future__ import annotations

import os
import socket
import time
from heapq import nsmallest
from typing import Any

import msgspec
import trio

from .. import _conf
from .._asgi.masking import mask_query
from .._asgi.protocol import address
from .._connection.registry import Live, begun, having, primary_key
from .._orders import role_of_run, this_run
from ..health import HealthApplication
from ..layers import DEFAULT_CHANNEL_LAYER, channel_layers
from ..layers.base import ChannelLayer
from ..log import number_of
from ..worker import running_workers

#: Most groups in a report: the largest ones. And most groups that are named of one connection.
MOST_GROUPS, MOST_OF_ONE = 100, 20
#: Most characters of a text.
LONGEST = 200
#: Connections that are looked at before other tasks run.
PART = 500

_STARTED = time.time()
_HOST = socket.gethostname()


class Question(msgspec.Struct, frozen=True):
    """What is to be reported.

    Args:
        find: text that a path (without the query), route, user, client or channel name contains; "" finds all.
        group: the group of which it must be a member; "": any.
        rows: most connections of one process.
    """

    find: str = ""
    group: str = ""
    rows: int = 200


class Introduction(msgspec.Struct, frozen=True):
    """A process as the others know it.

    Args:
        run: a name that no other process has.
        pid: the process id.
        host: the name of its machine.
        role: ``server`` or ``worker``.
        started: its start, in Unix time.
    """

    run: str
    pid: int
    host: str
    role: str
    started: float


class Connection(msgspec.Struct, frozen=True):
    """One connection: of a client, or a message that a worker handles.

    Args:
        kind: the type of its scope: ``websocket``, ``http`` or ``channel``.
        number: the server's number, as in log lines; None if it does not number connections.
        path: with the query, in which secrets are masked; or the named channel.
        route: the pattern that has matched.
        client: the address of the other end, which may be a proxy.
        user: the primary key; "" if no user is known.
        username: the user's name.
        age: seconds since its beginning.
        handling: the type of the message that is being handled.
        ending: whether it is being closed.
        channel: its channel name; "" without one.
        layer: the alias of the channel layer that has the channel.
        waiting: messages in its mailbox.
        groups: the groups that it is a member of, twenty at most.
        more_groups: the number of groups that are not named.
    """

    kind: str
    number: int | None
    path: str
    route: str
    client: str
    user: str
    username: str
    age: float
    handling: str
    ending: bool
    channel: str
    layer: str
    waiting: int
    groups: list[str]
    more_groups: int


class Group(msgspec.Struct, frozen=True):
    """A group in one process: the alias of its layer, its name, the number of its members."""

    layer: str
    name: str
    members: int


class WorkerReport(msgspec.Struct, frozen=True):
    """A named channel that a worker serves in one process, and its messages; see ``ChannelStatistics``."""

    layer: str
    channel: str
    running: int
    handled: int
    failed: int
    dead: int


class Report(msgspec.Struct, frozen=True):
    """The answer of one process.

    Args:
        process: the process.
        figures: the report of :class:`~trio_channels.health.HealthApplication`.
        connections: those that were asked for, the oldest first.
        found: the number of connections that were asked for; the report has ``rows`` of them at most.
        groups: its largest groups, a hundred at most.
        all_groups: the number of its groups.
        workers: the channels of its workers.
    """

    process: Introduction
    figures: dict[str, Any]
    connections: list[Connection]
    found: int
    groups: list[Group]
    all_groups: int
    workers: list[WorkerReport]


def introduction() -> Introduction:
    """This process, in the current Trio run."""
    return Introduction(this_run(), os.getpid(), printable(_HOST), role_of_run.get(), _STARTED)


async def report(question: Question) -> Report:
    """The report of this Trio run. Cancellation: at any time."""
    is_member = having([mailbox for _, layer in _layers() for mailbox in layer.mailboxes_here(group=question.group)])
    rows: list[Connection] = []
    found = 0
    for number, (live, since) in enumerate(begun()):
        if number % PART == 0:
            await trio.lowlevel.checkpoint()
        if question.group and not is_member(live):
            continue
        if question.find and not _matches(live, question.find):
            continue
        found += 1
        if len(rows) < question.rows:
            rows.append(_row(live, since))
    groups = [
        (-members, name, alias)
        for alias, layer in _layers()
        for name, members in layer.groups_here().items()
        if question.find in name and question.group in ("", name)
    ]
    return Report(
        introduction(),
        HealthApplication().report(),
        rows,
        found,
        [Group(alias, name, -members) for members, name, alias in nsmallest(MOST_GROUPS, groups)],
        len(groups),
        [
            WorkerReport(alias_of(worker.layer), channel, seen.running, seen.handled, seen.failed, seen.dead)
            for worker in running_workers()
            for channel, seen in worker.statistics().channels.items()
        ],
    )


def printable(text: str) -> str:
    """A text as it may be shown in a terminal, too: not too long, and without control characters."""
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def alias_of(wanted: ChannelLayer) -> str:
    """The alias of a channel layer; the default one's for a layer that has none."""
    return next((alias for alias, layer in _layers() if layer is wanted), DEFAULT_CHANNEL_LAYER)


def _layers() -> list[tuple[str, ChannelLayer]]:
    return list(channel_layers.backends.items())


def _texts(live: Live) -> tuple[str, str, str, str, str, str]:
    """The path, route, client, user, user name and channel name of a connection."""
    scope = live.scope
    user, username = _user(live)
    return (
        printable(scope.get("path") or scope.get("channel") or ""),
        printable(str(scope.get("url_pattern") or getattr(live, "route", ""))),
        printable(address(scope)) if scope.get("client") else "",
        user,
        username,
        "" if live.mailbox is None else live.mailbox.name,
    )


def _user(live: Live) -> tuple[str, str]:
    user = live.user
    key = primary_key(user)
    if key is None:
        return "", ""
    try:
        return printable(str(key)), printable(str(user.get_username()))
    except Exception:  # a user of somebody else's
        return printable(str(key)), ""


def _matches(live: Live, find: str) -> bool:
    return any(find.casefold() in text.casefold() for text in _texts(live))


def _row(live: Live, since: float) -> Connection:
    path, route, client, user, username, channel = _texts(live)
    query = bytes(live.scope.get("query_string") or b"").decode("latin-1")
    query = printable(mask_query(query, _conf.get("MASKED_PARAMETERS")))
    mailbox = live.mailbox
    groups = [] if mailbox is None else sorted(mailbox.groups)
    return Connection(
        kind=live.scope["type"],
        number=number_of(live.scope),
        path=f"{path}?{query}" if query else path,
        route=route,
        client=client,
        user=user,
        username=username,
        age=round(trio.current_time() - since, 3),
        handling=printable(getattr(live, "activity", None) or ""),
        ending=bool(getattr(live, "ending", False)),
        channel=channel,
        layer=_layer_with(channel) if channel else "",
        waiting=0 if mailbox is None else mailbox.statistics().waiting,
        groups=groups[:MOST_OF_ONE],
        more_groups=max(len(groups) - MOST_OF_ONE, 0),
    )


def _layer_with(channel: str) -> str:
    return next((alias for alias, layer in _layers() if layer.mailboxes_here(channel=channel)), DEFAULT_CHANNEL_LAYER)
