"""Closing connections from outside: those of a user, of a channel, or of a group's members.

::

    await close_user(user)                    # in async code
    async_to_sync(close_user)(user)           # in a view, a command, a task queue

The rules:

1. The order goes to every process, over the channel layer ``default``, or the first one if there is no such alias. The
   in-memory layer reaches its own process only. Without a layer it is the Trio run of the caller only.
2. WebSockets are closed with the code, or denied if they are not accepted yet. The application finds its client gone,
   as after any other disconnect; messages that the client has sent before are dropped.
3. A stream, of a view or an HTTP consumer, breaks off. A request to an HTTP consumer that has no answer yet gets 403,
   unless it is the one that gives the order. Every other request ends by itself.
4. A message to a process that is not there yet is lost, as those of every group.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import trio

from ._asgi.close_codes import may_be_sent
from ._asgi.protocol import Message
from ._connection.registry import Live, having, live, primary_key
from ._limits import Rule
from ._orders import functions, orders_layer, this_run
from ._orders import orders as orders  # from here, so that a process that hears orders knows this one
from .layers import channel_layers
from .layers.base import ChannelLayer
from .layers.names import ORDERS as ORDERS
from .layers.names import check_channel_name, check_group_name

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

__all__ = ["close_channel", "close_group", "close_user"]

logger = logging.getLogger("trio_channels.closing")

#: The close code of the three functions: one of those that applications may choose (RFC 6455, section 7.4.2).
CLOSED = 4001
#: The type of the order.
CLOSE = "trio_channels.close"

_CODE = Rule("a close code that may be sent, such as 4001", may_be_sent)
_REASON = Rule(
    "a str of at most 123 bytes of UTF-8",
    lambda value: isinstance(value, str) and len(value.encode("utf-8", "surrogatepass")) <= 123,
)


async def close_user(user: AbstractBaseUser | int | str, code: int = CLOSED, reason: str = "") -> None:
    """Close every connection of a user, in every process.

    Args:
        user: the user, or the primary key.
        code: the close code.
        reason: the close reason, at most 123 bytes.

    Raises:
        ConfigurationError: the code or reason must not be sent, or the user has no primary key.
        ChannelLayerUnavailable: the other processes could not be told. In this one the connections are closed.

    Only users in a scope, which AuthMiddleware puts there, or of a view's request are known.

    Cancellation: the connections in this process are closed; the other processes may not be told.
    """
    key = getattr(user, "pk", user)
    _USER.require("the user", key)
    await _order({"user": str(key)}, code, reason)


async def close_channel(name: str, code: int = CLOSED, reason: str = "") -> None:
    """Close the connection with this ``channel_name``, in whichever process it is.

    Args:
        name: the name. If there is no such connection, nothing happens.
        code, reason: as for :func:`close_user`.

    Raises:
        InvalidNameError: the name breaks the rules.
        ConfigurationError, ChannelLayerUnavailable: as :func:`close_user`.

    Cancellation: as :func:`close_user`.
    """
    check_channel_name(name)
    await _order({"channel": name}, code, reason)


async def close_group(group: str, code: int = CLOSED, reason: str = "") -> None:
    """Close every connection that is a member of a group, or has a task that subscribes to it, in every process.

    Args:
        group: the group's name, on any layer.
        code, reason: as for :func:`close_user`.

    Raises:
        InvalidNameError: the name breaks the rules.
        ConfigurationError, ChannelLayerUnavailable: as :func:`close_user`.

    Cancellation: as :func:`close_user`.
    """
    check_group_name(group)
    await _order({"group": group}, code, reason)


async def close_session(session_key: str, code: int, reason: str) -> None:
    """Close every connection of a session whose user is logged in. Cancellation: as :func:`close_user`."""
    await _order({"session": _digest(session_key)}, code, reason)


_USER = Rule(
    "a user that is saved, or the primary key of one",
    lambda key: key is not None and not isinstance(key, bool) and str(key) != "",
)


def _digest(session_key: str) -> str:
    """What travels in the place of a session's key, which is as good as a password."""
    return sha256(session_key.encode()).hexdigest()


async def _order(target: dict[str, str], code: int, reason: str) -> None:
    _CODE.require("the code", code)
    _REASON.require("the reason", reason)
    order = {"type": CLOSE, "code": code, "reason": reason, "from": this_run(), **target}
    await trio.lowlevel.checkpoint_if_cancelled()
    _obey(order, trio.lowlevel.current_task())
    layer = orders_layer()
    if layer is not None:
        await layer.group_send(ORDERS, order)
    else:
        await trio.lowlevel.cancel_shielded_checkpoint()


def _obey(order: Message, caller: trio.lowlevel.Task | None = None) -> None:
    """Close this run's connections that are meant, except the request of the caller."""
    code, reason = order.get("code"), order.get("reason")
    if not (_CODE.holds(code) and _REASON.holds(reason)):
        logger.warning("an order to close connections is malformed, and is ignored")
        return
    closed = 0
    for connection in list(_meant(order)):
        if connection.scope["type"] == "http" and connection.has_task(caller):
            continue
        closed += connection.close_from_outside(code, reason)  # type: ignore[arg-type]  # as the rules say
    if closed:
        what = next((f"{key} {order[key]}" for key in ("user", "channel", "group") if key in order), "a session")
        logger.info("closing %d connections of %s with %d", closed, what, code)


def _meant(order: Message) -> Iterator[Live]:
    if "user" in order:
        return (connection for connection in live() if _is_of_user(connection, order["user"]))
    if "session" in order:
        return (connection for connection in live() if _is_of_session(connection, order["session"]))
    names: dict[str, Any] = {key: order[key] for key in ("channel", "group") if isinstance(order.get(key), str)}
    mailboxes = [mailbox for layer in channel_layers.backends.values() for mailbox in layer.mailboxes_here(**names)]
    return filter(having(mailboxes), live())


def _is_of_user(connection: Live, key: object) -> bool:
    mine = primary_key(connection.user)
    return mine is not None and str(mine) == key


def _is_of_session(connection: Live, digest: object) -> bool:
    key = getattr(connection.session, "session_key", None)
    return key is not None and primary_key(connection.user) is not None and _digest(key) == digest


def _obey_other(order: Message, _layer: ChannelLayer, _nursery: trio.Nursery) -> None:
    _obey(order)


functions[CLOSE] = _obey_other
