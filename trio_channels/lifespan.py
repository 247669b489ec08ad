"""The life of the application: what begins before its first connection, and ends after its last.

::

    @lifespan
    async def run():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll_prices)
            yield {"prices": prices}
            nursery.cancel_scope.cancel()

    application = ProtocolTypeRouter({"http": ..., "websocket": ..., "lifespan": run})

The rules (ASGI specification, Lifespan 2.0):

1. The block begins when the channel layers are open, and ends before they are closed. It is a part of the server's own
   lifespan task, so its nurseries belong to the server.
2. The dict that it yields becomes ``scope["state"]``, a shallow copy for each request and each WebSocket.
3. If the block raises before it yields, the server does not start.
4. If it ends while the server serves, as after an error of one of its tasks, the traceback is logged, and the server
   drains and ends with an error. The channel layers stay open during the drain.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from ._asgi.foreign import NOT_TRIO
from ._asgi.foreign_calls import explain
from ._asgi.protocol import Application, ASGIApplication, Receive, Scope, Send
from ._concurrency.exception_groups import bare
from ._connection.lasting import lasting
from .closing import orders
from .exceptions import ConfigurationError, TrioChannelsError
from .layers import channel_layers

__all__ = ["lifespan"]

logger = logging.getLogger("trio_channels.lifespan")

State = Mapping[str, Any] | None
Manager = Callable[[], AbstractAsyncContextManager[State]]
Run = Manager | Callable[[], AsyncIterator[State]]


def lifespan(run: Run) -> Application:
    """Make an ASGI application for the ``lifespan`` scope of an async context manager; a decorator or a call.

    Args:
        run: an async function without arguments that yields once: nothing, or the dict for ``scope["state"]``. One
            that :func:`contextlib.asynccontextmanager` has decorated, and other functions that return an async context
            manager, are taken too.

    Raises:
        ConfigurationError: `run` is an async function without a ``yield``.

    A ProtocolTypeRouter calls this by itself if its entry ``lifespan`` takes no arguments.
    """
    if inspect.iscoroutinefunction(run):
        raise ConfigurationError(
            f"expected an async context manager, which yields once; {_name(run)}() has no yield. Start tasks in a "
            f"nursery around the yield"
        )
    manager: Any = asynccontextmanager(run) if inspect.isasyncgenfunction(run) else run

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await _Life(manager, scope, receive, send).live()

    return application


def as_application(entry: Any) -> ASGIApplication:
    """The entry ``lifespan`` of a router as an ASGI application. Raises ConfigurationError if it can be none."""
    try:
        signature = inspect.signature(entry)
    except (TypeError, ValueError):  # the signature of some callables is not known
        return entry  # type: ignore[no-any-return]
    if _takes(signature, 3):
        return entry  # type: ignore[no-any-return]
    if _takes(signature, 0):
        return lifespan(entry)
    raise ConfigurationError(
        f"the entry 'lifespan' must be an async context manager without arguments, or an ASGI application, which takes "
        f"scope, receive and send; got {_name(entry)}{signature}"
    )


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _name(function: object) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


@asynccontextmanager
async def open_layers() -> AsyncIterator[None]:
    """Open every layer of ``CHANNEL_LAYERS``, for the length of the block. Cancellation: the layers are closed.

    A layer whose backend is away is open, and waits for it.
    """
    async with AsyncExitStack() as layers:
        for alias in channel_layers.configs:
            await layers.enter_async_context(channel_layers[alias].open_patiently())
        yield


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


class _Life:
    """One run of the application, in a server."""

    def __init__(self, run: Manager, scope: Scope, receive: Receive, send: Send) -> None:
        self._run = run
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started = False
        self._ending = False  # the server has asked for the end
        self._crash: Exception | None = None  # the error that has ended the block while the server served

    async def live(self) -> None:
        """Answer the lifespan scope. Cancellation: the block is cancelled, the layers are closed."""
        await self._receive()
        if not trio.lowlevel.in_trio_run():
            await self._tell("startup.failed", NOT_TRIO)
            return
        async with AsyncExitStack() as layers:
            if not await self._open(layers) or not await self._serve():
                return
            try:
                await layers.aclose()
            except Exception as error:
                logger.exception("a channel layer could not be closed cleanly")
                await self._tell("shutdown.failed", _in_words(error))
                return
        if self._crash is not None:
            raise self._crash
        await self._tell("shutdown.complete")

    async def _open(self, layers: AsyncExitStack) -> bool:
        """Open the layers, or say why they cannot be opened."""
        try:
            await layers.enter_async_context(open_layers())
            await layers.enter_async_context(orders())
            await layers.enter_async_context(lasting())
        except TrioChannelsError as error:
            await self._tell("startup.failed", f"a channel layer cannot be opened: {error}")
            return False
        except Exception as error:
            logger.exception("a channel layer could not be opened; the server will not start")
            await self._tell("startup.failed", _in_words(error))
            return False
        return True

    async def _serve(self) -> bool:
        """Run the block until the server asks for the end; returns whether the layers are still to be closed."""
        try:
            async with self._run() as state:
                self._share(state)
                await self._tell("startup.complete")
                self._started = True
                await self._receive()
                self._ending = True
            if not self._ending:
                raise RuntimeError("the lifespan ended before the server: its block was cancelled inside")
        except Exception as error:
            explain(error)
            cause = bare(error)
            if not self._started:
                logger.error("the application could not start; the server will not start", exc_info=cause)
                await self._tell("startup.failed", _in_words(error))
                return False
            if self._ending:
                logger.error("the application failed while it was shutting down", exc_info=cause)
                await self._tell("shutdown.failed", _in_words(error))
                return False
            logger.error("the lifespan of the application failed; the server drains, and ends", exc_info=cause)
            self._crash = error
            await self._drained(error)
        return True

    def _share(self, state: object) -> None:
        """Give the connections what the block has yielded."""
        if state is None:
            return
        if not isinstance(state, Mapping):
            raise ConfigurationError(f"a lifespan must yield a dict, or nothing; got {type(state).__name__}")
        if "state" not in self._scope:
            raise ConfigurationError("the server has no scope['state'], in which the lifespan could share its dict")
        self._scope["state"].update(state)

    async def _drained(self, error: Exception) -> None:
        """Tell the server of a crash, and wait until its connections have ended: they use the layers until then."""
        try:
            await self._tell("shutdown.failed", _in_words(error))
        except Exception as answer:  # a server may raise in an application that has failed
            logger.debug("the server's answer to the crash: %r", answer)
        await self._receive()

    async def _tell(self, event: str, message: str | None = None) -> None:
        more = {} if message is None else {"message": message}
        await self._send({"type": f"lifespan.{event}", **more})


def _in_words(error: Exception) -> str:
    cause = bare(error)
    return f"{type(cause).__name__}: {cause}"


#: The lifespan of a router without an entry ``lifespan``: the channel layers are open, and nothing else runs.
layers_only = lifespan(_nothing)
