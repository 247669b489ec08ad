"""Writing messages into the outbox."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import partial
from typing import Any

from django.apps import apps
from django.db import connections, router

from .._asgi.content import NOT_GIVEN, broadcast_message
from .._asgi.protocol import Message
from .._threads.database import run_in_thread
from ..exceptions import ConfigurationError
from ..layers import DEFAULT_CHANNEL_LAYER, channel_layers, names
from ..layers.message import encode, round_trip

#: The parts of all groups. A relay takes several at a time, so that other relays find some too.
BUCKETS = 64

#: The channel of PostgreSQL's NOTIFY.
NOTIFICATION = "trio_channels_outbox"

APP = "trio_channels.outbox"


def group_send(
    group: str,
    message: Message,
    *,
    exclude: str | Iterable[str] = (),
    using: str | None = None,
    layer: str = DEFAULT_CHANNEL_LAYER,
) -> None:
    """Write a message to every member of a group into the outbox, in the current transaction.

    A relay sends it when the transaction has committed. Without a transaction the row is committed at once.

    Args:
        group, message, exclude: as for ``group_send`` of the channel layer.
        using: the alias of the transaction's database; if None, that of your database routers, or Django's default.
        layer: the alias of the channel layer.

    Raises:
        InvalidNameError, MessageNotEncodable: the message cannot be sent; nothing is written.
        InvalidChannelLayerError: ``CHANNEL_LAYERS`` has no such entry.
        ConfigurationError: ``trio_channels.outbox`` is not in ``INSTALLED_APPS``.
        django.db.Error: raised by the database.
    """
    write = _writing(group, message, exclude, using, layer)
    write()


def group_broadcast(
    group: str,
    *,
    text: str | None = None,
    bytes: bytes | None = None,  # noqa: A002  # as in ASGI's websocket.send
    json: Any = NOT_GIVEN,
    exclude: str | Iterable[str] = (),
    using: str | None = None,
    layer: str = DEFAULT_CHANNEL_LAYER,
) -> None:
    """As :func:`group_send`, for ``group_broadcast``: one of `text`, `bytes` and `json` is the content."""
    group_send(group, broadcast_message(text, bytes, json), exclude=exclude, using=using, layer=layer)


def topic_broadcast(
    topic: str,
    event: str,
    payload: Any = None,
    *,
    exclude: str | Iterable[str] = (),
    using: str | None = None,
    layer: str = DEFAULT_CHANNEL_LAYER,
) -> None:
    """As :func:`group_send`, for :func:`trio_channels.topics.broadcast`: an event to every client in a topic.

    Args:
        topic, event, payload: as for :func:`trio_channels.topics.broadcast`.
        exclude, using, layer: as for :func:`group_send`.

    Raises: as :func:`group_send`.
    """
    group_send(*_of_topic(topic, event, payload), exclude=exclude, using=using, layer=layer)


async def agroup_send(
    group: str,
    message: Message,
    *,
    exclude: str | Iterable[str] = (),
    using: str | None = None,
    layer: str = DEFAULT_CHANNEL_LAYER,
) -> None:
    """As :func:`group_send`, for async code: the transaction is that of the ``aatomic`` block around it.

    Raises:
        WorkerPoolBusy: too many calls already wait for a thread.
        Exception: as :func:`group_send`.

    Cancellation: the wait for a thread can be cancelled; a row that is being written is written.
    """
    await run_in_thread(_writing(group, message, exclude, using, layer))


async def agroup_broadcast(
    group: str,
    *,
    text: str | None = None,
    bytes: bytes | None = None,  # noqa: A002  # as in ASGI's websocket.send
    json: Any = NOT_GIVEN,
    exclude: str | Iterable[str] = (),
    using: str | None = None,
    layer: str = DEFAULT_CHANNEL_LAYER,
) -> None:
    """As :func:`agroup_send`, for ``group_broadcast``. Cancellation: the same."""
    await agroup_send(group, broadcast_message(text, bytes, json), exclude=exclude, using=using, layer=layer)


async def atopic_broadcast(
    topic: str,
    event: str,
    payload: Any = None,
    *,
    exclude: str | Iterable[str] = (),
    using: str | None = None,
    layer: str = DEFAULT_CHANNEL_LAYER,
) -> None:
    """As :func:`agroup_send`, for :func:`trio_channels.topics.broadcast`. Cancellation: the same."""
    await agroup_send(*_of_topic(topic, event, payload), exclude=exclude, using=using, layer=layer)


def require_app() -> None:
    """Raise ConfigurationError unless the app is installed: otherwise it has no models."""
    if not apps.is_installed(APP):
        raise ConfigurationError(f"the outbox needs {APP!r} in INSTALLED_APPS, and then 'manage.py migrate'")


def bucket_of(layer: str, group: str) -> int:
    """The bucket of a group."""
    return zlib.crc32(f"{layer}:{group}".encode()) % BUCKETS


def _of_topic(topic: str, event: str, payload: Any) -> tuple[str, Message]:
    """The group of a topic, and the message of a broadcast to it."""
    from ..topics.broadcasting import broadcast_message, group_of  # here: an outbox without topics does not load them

    message = broadcast_message(topic, event, payload)  # it looks at the topic's name, too
    return group_of(topic), message


def _writing(
    group: str, message: Message, exclude: str | Iterable[str], using: str | None, layer: str
) -> partial[None]:
    """The function that writes the row; everything that can be wrong with its arguments is wrong now."""
    require_app()
    names.check_group_name(group)
    others = sorted(names.check_excluded(exclude))
    channel_layers[layer]
    row = {
        "layer": layer,
        "group": group,
        "bucket": bucket_of(layer, group),
        "message": encode(round_trip(message)),
        "exclude": others,
    }
    return partial(_write, using, row)


def _write(using: str | None, row: dict[str, Any]) -> None:
    from .models import OutboxMessage  # Django imports this module before the models

    using = using or router.db_for_write(OutboxMessage)
    OutboxMessage(**row).save(using=using, force_insert=True)
    notify(using)


def notify(using: str) -> None:
    """Wake the relays when the current transaction commits, if the database can: PostgreSQL."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [NOTIFICATION])
