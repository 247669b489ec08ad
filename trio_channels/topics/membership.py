"""One topic that one client has joined: its nursery, its handlers, its end.

    nursery of the socket
      Slot.run           the joins of one topic, one after another
        nursery          of one membership
          serve          join(), the reply, then the handlers, one at a time
          start_soon()   the topic's background tasks

The rules:

1. The socket joins the group before ``join()`` is called, so that nothing is missed between what ``join()`` reads and
   the first broadcast. Messages to the client that come before the join's reply are held, and follow it.
2. ``leave()`` runs once if ``join()`` has returned, on every way out, in a shielded scope with a deadline.
3. A client that leaves has its earlier pushes handled first. A client that joins again has not: the old membership is
   cancelled, the client told ``phx_close``, and then the new one begins.
4. An exception ends this membership only. It is logged once, and the client gets ``phx_error``, or an error reply to
   its join. Without the channel layer, or without a free thread, the client gets an error reply, and the log one line.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import trio

from .._asgi import protocol
from .._asgi.protocol import Message
from .._concurrency.wakeup import Wakeup
from .._threads.pool import never_refused
from .._threads.thread import lease_of_task
from ..exceptions import ConnectionClosed, StopConsumer
from . import failures, frames
from .calls import Push, call, handle_out
from .failures import MessagesLost
from .frames import Frame
from .group import TopicGroup
from .handlers import Kind
from .presence import diff_frame, state_frame
from .resuming import position_frame, with_position, with_recovery
from .topic import Topic

if TYPE_CHECKING:
    from .socket import TopicSocket

logger = logging.getLogger("trio_channels.topics")

RATE_LIMITED = {"reason": "too many pushes in a second"}
TOO_MANY_PENDING = {"reason": "too many pushes are waiting"}


class Membership:
    """One join of a topic; see the module's rules."""

    __slots__ = (
        *("_answered", "_broadcasts", "_cause", "_connection", "_frame", "_group", "_held", "_inbox", "_joined"),
        *("_kwargs", "_leave", "_methods", "_nursery", "_pushes", "_rate", "_released", "_room", "_scope", "_size"),
        *("_socket", "_topic", "_type", "_wakeup", "join_ref", "over"),
    )

    def __init__(self, socket: TopicSocket, cls: type[Topic], kwargs: dict[str, Any], frame: Frame) -> None:
        self.join_ref = frame.join_ref
        self.over = False  # handles no further pushes and broadcasts
        self._socket = socket
        self._connection = socket._connection
        self._type = cls
        self._methods = cls._methods
        self._kwargs = kwargs
        self._frame = frame
        self._topic: Topic | None = None
        self._group = TopicGroup(socket.channel_layer, frame.topic, getattr(socket, "channel_name", ""))
        self._room, self._rate = socket._room_of(cls), socket._rate_of(cls)
        self._inbox: deque[Frame | Message | None] = deque()  # pushes, broadcasts for handle_out(), None for the end
        self._pushes = 0  # in the inbox, and the one that is being handled
        self._size = frame.size  # of the join and of the pushes, as long as they are kept
        self._broadcasts = 0  # in the inbox, or held
        self._held: deque[Message] | None = deque()  # None: what goes to the client need not wait for the join's reply
        self._released = trio.Event()
        self._wakeup = Wakeup()
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._joined = False  # join() has returned
        self._answered = False  # the client has the reply to its join
        self._leave: Frame | None = None  # the client's phx_leave
        self._cause: MessagesLost | None = None

    # -- for the socket: nothing here waits ---------------------------------------------------------------------------

    @property
    def passes(self) -> bool:
        """Whether a broadcast may go to the client at once."""
        return self._held is None and self._methods.handle_out is None

    def offer(self, frame: Frame) -> dict[str, str] | None:
        """Have a push handled; returns the answer to a client that has sent too many."""
        if self.over:
            return None
        if self._rate.exceeded():
            return RATE_LIMITED
        if self._pushes > self._room or not self._socket._reserve(frame.size):
            return TOO_MANY_PENDING
        self._pushes += 1
        self._size += frame.size
        self._put(frame)
        return None

    def take(self, message: Message) -> None:
        """Take a broadcast that does not pass: for ``handle_out()``, or for after the join's reply."""
        if self._broadcasts >= self._group.room:
            self.lose("it is slower than the broadcasts to it")
            return
        self._broadcasts += 1
        if self._methods.handle_out is not None:
            self._put(message)
        else:
            held = cast("deque[Message]", self._held)  # otherwise it would pass
            held.append(with_position(message))
            if "bytes" in message and (position := position_frame(message)) is not None:
                held.append(position)

    def tell(self, change: Message) -> Message | None:
        """The message that tells the client of a change of the presence; None if it waits for the join's reply."""
        message = diff_frame(self._frame.topic, change)
        if self._held is not None:
            self._held.append(message)
            return None
        return None if self.over else message

    def lose(self, why: str) -> None:
        """End, as broadcasts are missing; the client is told to join again."""
        self._cause = self._cause or MessagesLost(why)
        self.replace()

    def leave(self, frame: Frame | None) -> None:
        """End when the pushes so far are handled; if the client wants it, within ``DISCONNECT_TIMEOUT`` seconds."""
        if self.over:
            return
        self.over = True
        self._leave = frame
        if not self._joined:
            self._scope.cancel()
            return
        if frame is not None:
            self._scope.deadline = trio.current_time() + self._connection.limits.disconnect_timeout
        self._put(None)

    def replace(self) -> None:
        """End at once."""
        self.over = True
        self._scope.cancel()

    def give_up(self) -> Message:
        """Before it has begun, end; returns the message that tells the client."""
        self._free(self._size)
        return self._closed()

    def _closed(self) -> Message:
        """The message that tells the client of a normal end."""
        return frames.push(self.join_ref, self._frame.topic, frames.CLOSE, None, ref=self.join_ref)

    def _free(self, size: int) -> None:
        self._size -= size
        self._socket._release(size)

    def _put(self, item: Frame | Message | None) -> None:
        self._inbox.append(item)
        self._wakeup.set()

    # -- for the topic ------------------------------------------------------------------------------------------------

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any, name: object = None) -> None:
        """See :meth:`Topic.start_soon`."""
        if self._nursery is None:
            raise RuntimeError(f"{self._topic!r} has no nursery: it has ended")
        self._nursery.start_soon(self._background, function, args, name=name or function)

    async def _background(self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        lease_of_task.set(None)  # the task may outlive the call on a thread that started it
        try:
            await function(*args)
        except Exception as error:
            error.add_note(f"in the background task {getattr(function, '__qualname__', function)}")
            raise

    async def send(self, message: Message) -> None:
        """See :meth:`Topic.push`."""
        if self._held is not None and not self._answered:
            await trio.lowlevel.checkpoint()
            self._held.append(message)
            return
        if self._held is not None:
            await self._released.wait()
        await self._connection.send(message)

    @property
    def group(self) -> TopicGroup:
        """The topic's place in the channel layer."""
        return self._group

    # -- its life -----------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Run from the join to the end. Cancellation: ``leave()`` still runs."""
        failure: Exception | None = None
        try:
            failure = await self._live()
        finally:
            self.over = True
            self._nursery = None
            self._free(self._size)
            seconds = self._connection.limits.disconnect_timeout
            with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds) as scope:
                await self._clean_up()
            if scope.cancelled_caught:
                logger.warning(
                    "leave() of %s was cancelled: it took longer than %g seconds (DISCONNECT_TIMEOUT)",
                    self._place(),
                    seconds,
                )
        await self._say_goodbye(failure)

    async def _live(self) -> Exception | None:
        """Join, and handle events until the end. Returns the failure, or None."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    await self._join()
                    await self._handle_all()
                    nursery.cancel_scope.cancel()
        except BaseException as raised:
            failure, other = failures.split(raised, self._is_normal)
            if other is None:
                return failure
            if failure is not None:
                failures.log(failure, self._place())
            raise other from None
        return self._cause

    def _is_normal(self, error: BaseException) -> bool:
        return isinstance(error, StopConsumer) or (isinstance(error, ConnectionClosed) and self._connection.ending)

    async def _join(self) -> None:
        frame, join = self._frame, self._methods.join
        params = join.payload.decode(frame.payload)
        self._topic = topic = self._type()
        topic.kwargs, topic.topic, topic.socket, topic._membership = self._kwargs, frame.topic, self._socket, self
        await self._group.join(frame.payload)
        try:
            response = await call(join.kind, topic.join, params)
            self._joined = True
            if self._group.recovery is not None:
                response = with_recovery(response, self._group.recovery)
            message = frames.reply(self.join_ref, frame.ref, frame.topic, "ok", response)
        except Exception as error:
            error.add_note("in join()")
            raise
        after = [message]
        if self._type.shows_presence:
            self._socket._watchers[self._group.name] = self
            after.append(state_frame(frame.topic, await self._group.watch()))
        self._answered = True
        for message in after:
            await self._connection.send(message)
        while self._held:
            await self._connection.send(self._held.popleft())
        self._held = None
        self._frame = frame._replace(payload=b"")  # it may be long
        self._free(frame.size)
        self._broadcasts = self._broadcasts if self._methods.handle_out is not None else 0
        self._released.set()

    async def _handle_all(self) -> None:
        topic: Any = self._topic
        while True:
            if not self._inbox:
                await self._wakeup.wait()
                continue
            item = self._inbox.popleft()
            if item is None:
                return
            try:
                if isinstance(item, Frame):
                    await self._push(item).handle(topic, lambda: self.over)
                    self._pushes -= 1
                    self._free(item.size)
                else:
                    self._broadcasts -= 1
                    await handle_out(topic, cast(Kind, self._methods.handle_out), item)
                    if (position := position_frame(item)) is not None:
                        await self._connection.send(position)
            except ConnectionClosed:
                if not self._connection.ending:
                    raise
                # The client has gone. Its further pushes are still handled.

    def _push(self, frame: Frame) -> Push:
        return Push(frame, self.join_ref, self._connection.send, self._place)

    # -- its end ------------------------------------------------------------------------------------------------------

    async def _clean_up(self) -> None:
        if self._joined and self._topic is not None:
            before = never_refused.set(True)
            try:
                await call(self._methods.leave, self._topic.leave)
            except Exception as error:
                if not self._is_normal(error):
                    error.add_note("in leave()")
                    failures.log(error, self._place())
            finally:
                never_refused.reset(before)
        if self._type.shows_presence:
            self._socket._watchers.pop(self._group.name, None)
        if not self._connection.ending:  # the end of its mailbox ends all its memberships
            await self._group.leave()

    async def _say_goodbye(self, failure: Exception | None) -> None:
        """Tell the client how it has ended."""
        if failure is not None and (self._answered or not failures.refuses(failure)):
            failures.log(failure, self._place())
        try:
            if failure is not None and not self._answered:
                await self._push(self._frame).reply("error", failures.answer_to_join(failure))
            if self._leave is not None:
                await self._push(self._leave).reply("ok", None)
            if failure is None:
                await self._connection.send(self._closed())
            elif self._answered:
                await self._connection.send(
                    frames.push(self.join_ref, self._frame.topic, frames.ERROR, None, ref=self.join_ref)
                )
        except ConnectionClosed:
            pass  # the client has just gone

    def _place(self) -> str:
        return f"the topic {self._frame.topic!r} of {protocol.describe(self._socket.scope)}"
