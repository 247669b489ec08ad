"""Orders: messages that every process obeys, whichever process gives them.

They go to a group of the layer ``default``, or of the first one if there is no such alias. Each serving process is a
member. The in-memory layer reaches its own process only. An order's ``type`` names its function in :data:`functions`;
one that a process does not know, as it has another version, is ignored.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from ._asgi.protocol import Message
from .exceptions import ChannelLayerError, ChannelLayerUnavailable
from .layers import DEFAULT_CHANNEL_LAYER, channel_layers
from .layers.base import ChannelLayer
from .layers.mailbox import Mailbox
from .layers.message import Envelope, Gap
from .layers.names import ORDERS
from .layers.presence.state import Meta

logger = logging.getLogger("trio_channels.closing")

#: Seconds for which the start of a process waits until Redis knows of it.
JOINING = 1.0

#: A function that obeys an order at once. It gets the layer that has brought it, and a nursery for a task that goes on.
Function = Callable[[Message, ChannelLayer, trio.Nursery], None]

#: Type of an order -> the function that obeys it.
functions: dict[str, Function] = {}
#: How a process introduces itself to all others; None: nobody wants to know.
introduction: Callable[[], Meta] | None = None

#: The name of this Trio run, so that it does not take its own order a second time.
_name_of_run: trio.lowlevel.RunVar[str] = trio.lowlevel.RunVar("trio_channels.orders run")
#: The work of this Trio run: to serve, or to handle the messages of named channels.
role_of_run: trio.lowlevel.RunVar[str] = trio.lowlevel.RunVar("trio_channels.orders role", "server")


def orders_layer() -> ChannelLayer | None:
    """The layer over which the processes hear orders."""
    aliases = list(channel_layers.configs)
    if not aliases:
        return channel_layers.backends.get(DEFAULT_CHANNEL_LAYER)  # of a test
    return channel_layers[DEFAULT_CHANNEL_LAYER if DEFAULT_CHANNEL_LAYER in aliases else aliases[0]]


def this_run() -> str:
    """The name of this Trio run."""
    try:
        return _name_of_run.get()
    except LookupError:
        name = secrets.token_hex(8)
        _name_of_run.set(name)
        return name


@asynccontextmanager
async def orders(role: str = "server") -> AsyncIterator[None]:
    """In the block, obey the orders of other processes. The layers are open. Cancellation: ends the membership."""
    role_of_run.set(role)
    layer = orders_layer()
    if layer is None:
        yield
        return
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(_hear, layer, nursery)
        try:  # an error is raised outside of the nursery, which would wrap it in a group
            yield
        except Exception as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _hear(layer: ChannelLayer, nursery: trio.Nursery, task_status: trio.TaskStatus[None]) -> None:
    """Obey orders until cancelled, and again when a layer that was broken works."""
    while True:
        try:
            await _hear_until_broken(layer, nursery, task_status)
        except ChannelLayerUnavailable as error:
            logger.debug("the layer that brings orders is broken: %s", error)
        task_status = trio.TASK_STATUS_IGNORED
        await trio.sleep(JOINING)


async def _hear_until_broken(layer: ChannelLayer, nursery: trio.Nursery, task_status: trio.TaskStatus[None]) -> None:
    me, broken = this_run(), trio.Event()

    def offer(envelope: Envelope) -> bool:
        function = functions.get(str(envelope.message.get("type")))
        if function is not None and envelope.message.get("from") != me:
            function(envelope.message, layer, nursery)
        return True

    def note_gaps() -> None:
        while isinstance(gap := mailbox.get_nowait(), Gap):
            logger.warning("orders to close connections may be lost (%s); they stay open", gap.reason)

    # An order is obeyed where it is delivered, so that none has to wait.
    with layer.open_mailbox(ring=note_gaps, offer=offer, prefix="orders") as mailbox:
        mailbox.on_failure = broken.set
        with trio.move_on_after(JOINING):  # the membership stands, and Redis is told later
            async with trio.open_nursery() as joining:
                joining.start_soon(_join, layer, mailbox)
                joining.start_soon(_introduce, layer, mailbox)
        task_status.started()
        await broken.wait()


async def _join(layer: ChannelLayer, mailbox: Mailbox) -> None:
    try:
        await layer.group_add(ORDERS, mailbox.name)
    except ChannelLayerUnavailable as error:
        logger.debug("the group for orders could not be joined yet: %s", error)


async def _introduce(layer: ChannelLayer, mailbox: Mailbox) -> None:
    if introduction is None:
        return
    try:
        await layer.track_channel(ORDERS, mailbox.name, this_run(), introduction())
    except ChannelLayerError as error:  # also a layer without presence, of which a system check warns
        logger.debug("the others could not be told of this process yet: %s", error)
