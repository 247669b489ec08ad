"""The tasks of one connection: each application instance, and what the protocols start beside them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import h2.exceptions
import h11
import trio
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup
from hypercorn.typing import AppWrapper, Scope
from priority.priority import PriorityError
from wsproto.utilities import ProtocolError

from .._concurrency.exception_groups import leaves, split_cancelled
from .._concurrency.queues import Inbox
from ..exceptions import ConnectionClosed
from ..log import current_connection, number_of

Send = Callable[[Any], Awaitable[None]]


class ClientGone(ConnectionClosed, OSError):
    """What a ``send`` to a client that has gone raises, as the ASGI specification asks for since 2.4.

    An ``OSError`` for any application, a ``ConnectionClosed`` for those of trio-channels.
    """


class ConnectionTasks(TaskGroup):
    """The nursery of a connection, as hypercorn's protocols want to see it.

    Args:
        nursery: the connection's.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self._nursery: trio.Nursery = nursery

    async def spawn_app(self, app: AppWrapper, config: Config, scope: Scope, send: Send) -> Inbox:
        """Start an application instance; returns what its events are given to. Cancellation: atomic."""
        inbox = Inbox(config.max_app_queue_size)
        self._nursery.start_soon(_run, app, config, scope, inbox, send, name=app)
        return inbox


async def _run(app: AppWrapper, config: Config, scope: Scope, inbox: Inbox, send: Send) -> None:
    current_connection.set(number_of(scope))
    try:
        await app(scope, inbox.receive, send, trio.to_thread.run_sync, trio.from_thread.run)
    except ClientGone:
        pass  # no error of the application's
    except Exception as error:
        if not _means_gone(error):
            await config.log.exception("Error in ASGI Framework")
    except BaseExceptionGroup as group:
        _, others = split_cancelled(group)
        if others is None or not isinstance(others, ExceptionGroup):
            raise
        if not _means_gone(others):
            await config.log.exception("Error in ASGI Framework")
    finally:
        await send(None)


def _means_gone(error: Exception) -> bool:
    """Whether all that an application's tasks have raised is that the client has gone."""
    return isinstance(error, ExceptionGroup) and error.split(ClientGone)[1] is None


#: What protocol code raises for what a client has sent; anything else is a mistake of ours or of a library.
_CLIENTS_DOING = (ValueError, h11.RemoteProtocolError, h2.exceptions.ProtocolError, PriorityError, ProtocolError)


def clients_doing(error: BaseException) -> BaseException | None:
    """The first of the errors, if all of them are the client's doing."""
    errors = list(leaves(error))
    return errors[0] if all(isinstance(one, _CLIENTS_DOING) for one in errors) else None
