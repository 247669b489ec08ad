"""The tasks of one connection: application instances and the protocols' own tasks; and whose fault an error is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import h2.exceptions
import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup
from hypercorn.typing import AppWrapper, Scope
from priority.priority import PriorityError
from wsproto.utilities import ProtocolError

from .._asgi.foreign_calls import explain
from .._asgi.mounting import complete
from .._asgi.protocol import DIRECT, describe
from .._concurrency.exception_groups import leaves, split_cancelled
from .._concurrency.queues import Inbox
from ..exceptions import ConnectionClosed
from ..log import current_connection, number_of

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

#: The line above a traceback.
_HEADING = "the application raised an exception on %s"


#: The name of every application's task.
_NAME = "trio_channels application"


class ClientGone(ConnectionClosed, OSError):
    """Raised by ``send`` when the client has gone: an ``OSError``, as ASGI requires since 2.4."""


class ConnectionTasks(TaskGroup):
    """The nursery of a connection, with the interface that hypercorn's protocols expect."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self._nursery: trio.Nursery = nursery

    async def spawn_app(self, app: AppWrapper, config: Config, scope: Scope, send: Send) -> Inbox:
        """Start an application instance; returns the inbox for its events. Cancellation: atomic."""
        inbox = Inbox(config.max_app_queue_size)
        scope["extensions"][DIRECT] = inbox  # type: ignore[typeddict-item,assignment]
        self._nursery.start_soon(_run, app, config, scope, inbox.receive, send, name=_NAME)
        return inbox

    def start_app(self, app: AppWrapper, config: Config, scope: Scope, receive: Receive, send: Send) -> None:
        """Start an application instance that gets its events from ``receive``."""
        self._nursery.start_soon(_run, app, config, scope, receive, send, name=_NAME)


async def _run(app: AppWrapper, config: Config, scope: Scope, receive: Receive, send: Send) -> None:
    current_connection.set(number_of(scope))
    if scope["root_path"]:  # type: ignore[typeddict-item]
        complete(scope)  # type: ignore[arg-type]
    try:
        # The wrapper would be another coroutine of each connection.
        await (
            app.app(scope, receive, send)
            if isinstance(app, ASGIWrapper)
            else app(scope, receive, send, trio.to_thread.run_sync, trio.from_thread.run)
        )
    except ClientGone:
        pass  # no error of the application's
    except Exception as error:
        if not _means_gone(error):
            explain(error)
            await config.log.error(_HEADING, describe(cast(Any, scope)), exc_info=error)
    except BaseExceptionGroup as group:
        _, others = split_cancelled(group)
        if others is None or not isinstance(others, ExceptionGroup):
            raise
        if not _means_gone(others):
            explain(others)
            await config.log.error(_HEADING, describe(cast(Any, scope)), exc_info=others)
    finally:
        await send(None)


def _means_gone(error: Exception) -> bool:
    """Whether an application's tasks raised nothing but ClientGone."""
    return isinstance(error, ExceptionGroup) and error.split(ClientGone)[1] is None


#: Raised by protocol code for a client's invalid input. Any other error is a bug in this package or in a library.
_CLIENTS_DOING = (ValueError, h11.RemoteProtocolError, h2.exceptions.ProtocolError, PriorityError, ProtocolError)


def clients_doing(error: BaseException) -> BaseException | None:
    """The first error of a group, if invalid input of the client caused all of them; otherwise None."""
    errors = list(leaves(error))
    return errors[0] if all(isinstance(one, _CLIENTS_DOING) for one in errors) else None
