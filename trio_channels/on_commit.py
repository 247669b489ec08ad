"""Messages to groups that are sent when the surrounding database transaction commits, and not if it is rolled back.

The message is checked and copied when you call. After the commit it is sent by the process that committed: if that dies
in between, or the channel layer cannot be reached then, the message is lost. :mod:`trio_channels.outbox` loses none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import Any

import sniffio
import trio
from django.db import transaction

from ._asgi.content import NOT_GIVEN, broadcast_message
from ._asgi.protocol import Message
from ._threads.database import run_in_thread
from .exceptions import BridgeError, ChannelLayerUnavailable, TrioChannelsError
from .layers import DEFAULT_CHANNEL_LAYER, channel_layers, names
from .layers.base import ChannelLayer
from .layers.message import round_trip
from .sync import async_to_sync

__all__ = [
    "agroup_broadcast_on_commit",
    "agroup_send_on_commit",
    "group_broadcast_on_commit",
    "group_send_on_commit",
]

logger = logging.getLogger("trio_channels.on_commit")

#: Seconds that a message may take. Longer than a layer's own time limit; for layers that have none.
SENDING = 30.0


def group_send_on_commit(
    group: str,
    message: Message,
    *,
    exclude: str | Iterable[str] = (),
    using: str | None = None,
    layer: str = DEFAULT_CHANNEL_LAYER,
    robust: bool = True,
) -> None:
    """Send a message to every member of a group when the surrounding transaction commits; for synchronous code.

    Several messages are sent in the order of the calls. A rolled back transaction or savepoint sends none of its own.
    Without a transaction the message is sent at once, before the call returns.

    Args:
        group, message, exclude: as for ``group_send`` of the channel layer.
        using: the alias of the transaction's database; Django's default if None.
        layer: the alias of the channel layer.
        robust: what happens if the message cannot be sent. The transaction has been committed by then. True: the log
            has an error, the message is lost, and the caller goes on. False: the code that committed gets the error,
            such as ``ChannelLayerUnavailable``, and Django calls no further ``on_commit`` function.

    Raises:
        InvalidNameError, MessageNotEncodable: from the call, whether or not there is a transaction.
        InvalidChannelLayerError: ``CHANNEL_LAYERS`` has no such entry.
        BridgeError: the call was made on a thread that runs Trio or asyncio; await :func:`agroup_send_on_commit`.
        TransactionManagementError: autocommit is off, and no ``atomic`` block is around the call.
    """
    _refuse_event_loop()
    transaction.on_commit(_sending(group, message, exclude, layer, robust), using)


def group_broadcast_on_commit(
    group: str,
    *,
    text: str | None = None,
    bytes: bytes | None = None,  # noqa: A002  # as in ASGI's websocket.send
    json: Any = NOT_GIVEN,
    exclude: str | Iterable[str] = (),
    using: str | None = None,
    layer: str = DEFAULT_CHANNEL_LAYER,
    robust: bool = True,
) -> None:
    """As :func:`group_send_on_commit`, for ``group_broadcast``: one of `text`, `bytes` and `json` is the content."""
    message = broadcast_message(text, bytes, json)
    group_send_on_commit(group, message, exclude=exclude, using=using, layer=layer, robust=robust)


async def agroup_send_on_commit(
    group: str,
    message: Message,
    *,
    exclude: str | Iterable[str] = (),
    using: str | None = None,
    layer: str = DEFAULT_CHANNEL_LAYER,
    robust: bool = True,
) -> None:
    """As :func:`group_send_on_commit`, for async code: the transaction is that of the ``aatomic`` block around it.

    Raises:
        WorkerPoolBusy: too many calls already wait for a thread.
        Exception: as :func:`group_send_on_commit`.

    Cancellation: the wait for a thread can be cancelled. A message is sent once its transaction has begun to commit.
    """
    send = _sending(group, message, exclude, layer, robust)
    await run_in_thread(transaction.on_commit, send, using, neutral=True)


async def agroup_broadcast_on_commit(
    group: str,
    *,
    text: str | None = None,
    bytes: bytes | None = None,  # noqa: A002  # as in ASGI's websocket.send
    json: Any = NOT_GIVEN,
    exclude: str | Iterable[str] = (),
    using: str | None = None,
    layer: str = DEFAULT_CHANNEL_LAYER,
    robust: bool = True,
) -> None:
    """As :func:`agroup_send_on_commit`, for ``group_broadcast``. Cancellation: the same."""
    message = broadcast_message(text, bytes, json)
    await agroup_send_on_commit(group, message, exclude=exclude, using=using, layer=layer, robust=robust)


def _refuse_event_loop() -> None:
    try:
        library = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return
    raise BridgeError(
        f"group_send_on_commit() was called on a thread that runs {library}, whose database connection has no "
        f"transaction of yours; await agroup_send_on_commit() instead"
    )


def _sending(group: str, message: Message, exclude: str | Iterable[str], layer: str, robust: bool) -> partial[None]:
    """The function for ``on_commit``; everything that can be wrong with its arguments is wrong now."""
    names.check_group_name(group)
    others = names.check_excluded(exclude)
    return partial(_send, channel_layers[layer], group, round_trip(message), others, robust)


def _send(layer: ChannelLayer, group: str, message: Message, exclude: frozenset[str], robust: bool) -> None:
    try:
        async_to_sync(_send_shielded)(layer, group, message, exclude)
    except Exception as error:
        if not robust:
            raise
        foreseen = isinstance(error, TrioChannelsError)
        logger.error("a message to group %r was committed, and is lost: %s", group, error, exc_info=not foreseen)


async def _send_shielded(layer: ChannelLayer, group: str, message: Message, exclude: frozenset[str]) -> None:
    # A client that leaves cancels its view; but what the view has committed stays.
    with trio.move_on_after(SENDING, shield=True) as scope:
        await layer.group_send(group, message, exclude=exclude)
    if scope.cancelled_caught:
        raise ChannelLayerUnavailable(f"the channel layer did not take a message within {SENDING:g} seconds")
