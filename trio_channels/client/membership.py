"""A client's membership in a topic: its joins, its pushes, its messages, its end.

The rules:

1. Messages count from the reply to a join on. The position is that of the newest message in the buffer: a join from
   there on misses none, and gets none twice.
2. Pushes wait until the topic is joined, and are sent in their order. Once sent, a push is never sent again.
3. When the buffer is full messages are dropped. When it has been read, the topic is joined again, from the position of
   the last message in it.
4. The reply to each further join is put between the messages. It says whether all was recovered.
5. A refusal of the first join is an error. A later one is one, too, unless its reason is temporary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec
import trio

from ..exceptions import JoinFailed, NotConnected, ReplyLost, ReplyTimeout, TopicClientError, TopicEnded
from . import frames, presence
from .coming_back import STABLE
from .frames import ServerFrame
from .messages import Buffer, Message, Rejoined
from .presence import PresenceState
from .pushes import Pending

if TYPE_CHECKING:
    from .socket import ClientSocket, Link

#: Reasons of the server for refusing a join that pass.
TEMPORARY = ("unavailable", "join crashed", "too many pushes are waiting")


class Attempt:
    """One join, from its frame to its end."""

    __slots__ = ("answered", "link", "over", "pause", "ref")

    def __init__(self, ref: str, link: Link) -> None:
        self.ref = ref
        self.link = link
        self.answered = trio.Event()  # or over
        self.over = trio.Event()
        self.pause = True  # before the next one


class Membership:
    """See the module's rules."""

    def __init__(self, socket: ClientSocket, name: str, params: Any, since: str | None, timeout: float) -> None:
        frames.check_name("topic", name)
        self.name = name
        self.response: Any = None
        self.recovered = False
        self.position = since
        self.presence: PresenceState = {}
        encoded = frames.encode_payload(params)
        self._params: Any = params if isinstance(params, bytes) else msgspec.json.decode(encoded)
        self._socket = socket
        self._timeout = timeout
        self._buffer = Buffer(socket.options.capacity)
        self._attempt: Attempt | None = None  # the one that the server knows
        self._joined = False
        self._waiting: deque[Pending] = deque()
        self._sent: dict[str, Pending] = {}
        self._leaving: Pending | None = None
        self._begun = trio.Event()  # the first join has succeeded, or there will be none
        self._ended: Callable[[], Exception] | None = None
        self._scope = trio.CancelScope()

    @property
    def state(self) -> str:
        """For a repr."""
        return "ended" if self._ended else "joined" if self._joined else "not joined"

    @property
    def capacity(self) -> int:
        """The replies that a stream may hold."""
        return self._socket.options.capacity

    async def next_message(self) -> Message:
        """The next message. Raises TopicEnded, JoinFailed, SocketEnded. Cancellation: loses no message."""
        return await self._buffer.next(lambda: self._fall("messages to it were dropped", pause=False))

    # -- pushes -------------------------------------------------------------------------------------------------------

    def offer(self, event: str, payload: Any, wait: bool, limit: int = 1) -> Pending:
        """Send a push, or have it wait. Raises as :meth:`ClientTopic.push`."""
        frames.check_name("event", event)
        pending = Pending(self._socket.next_ref(), event, frames.encode_payload(payload), limit)
        if self._ended is not None:
            raise self._ended()
        most = self._socket.options.max_waiting
        if self._joined:
            self._send(pending)
        elif wait and self._socket.waiting < most:
            self._waiting.append(pending)
            self._socket.waiting += 1
        else:
            why = f"{most} pushes wait already (max_waiting)" if wait else "it must not wait"
            raise NotConnected(f"{event!r} was not sent: {self.name!r} is not joined now, and {why}")
        return pending

    def forget(self, pending: Pending) -> None:
        """Take no further replies to a push. If it still waits it is not sent."""
        if self._sent.pop(pending.ref, None) is None and pending in self._waiting:
            self._waiting.remove(pending)
            self._socket.waiting -= 1

    def _send(self, pending: Pending) -> None:
        attempt = cast(Attempt, self._attempt)  # the topic is joined, or being joined
        self._sent[pending.ref] = pending
        attempt.link.send(frames.encode(attempt.ref, pending.ref, self.name, pending.event, pending.payload))

    # -- its life -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Join, and join again. Cancellation: at any time."""
        failures = 0
        options = self._socket.options
        with self._scope:
            while True:
                link = await self._socket.wait_for_link()
                attempt = self._attempt = self._join(link)
                with trio.move_on_after(self._timeout):
                    await attempt.answered.wait()
                attempt.answered.set()  # a later answer does not count
                if self._joined:
                    joined = trio.current_time()
                    await attempt.over.wait()
                    failures = 0 if trio.current_time() - joined >= STABLE else failures
                if attempt.pause:
                    failures += 1
                    await trio.sleep(options.back_off(failures, None))

    async def wait_joined(self) -> None:
        """Wait for the first join. Raises as :meth:`ClientSocket.join`. Cancellation: at any time."""
        with trio.move_on_after(self._timeout) as scope:
            await self._begun.wait()
        if self._ended is not None:
            raise self._ended()
        if scope.cancelled_caught:
            raise ReplyTimeout(f"no reply to the join of {self.name!r} within {self._timeout:g} seconds")

    async def leave(self) -> None:
        """Leave, and wait for the reply if one can come. Cancellation: the server is told anyway."""
        self._scope.cancel()
        self._leaving = self._send_leave()
        if self._leaving is not None:
            with suppress(TopicClientError):
                await self._leaving.next(self._timeout)

    def drop(self) -> None:
        """End without waiting; the server is told if it does not know."""
        self._send_leave()
        self.end(lambda: TopicEnded(f"{self.name!r} was left"))

    def end(self, error: Callable[[], Exception]) -> None:
        """End for good; whoever waits gets the error."""
        if self._ended is not None:
            return
        self._ended = error
        self._fall("it has ended", pause=False)
        while self._waiting:
            self._waiting.popleft().fail(error)
            self._socket.waiting -= 1
        self._buffer.end(error)
        self._begun.set()
        self._scope.cancel()

    def lost(self) -> None:
        """The connection has ended."""
        self._fall("the connection has ended", pause=False)
        self._attempt = None

    def _join(self, link: Link) -> Attempt:
        ref = self._socket.next_ref()
        params = self._params
        if self.position is not None and isinstance(params, dict):
            params = {**params, "since": self.position}
        link.send(frames.encode(ref, ref, self.name, frames.JOIN, frames.encode_payload(params)))
        return Attempt(ref, link)

    def _send_leave(self) -> Pending | None:
        """Tell the server, unless it knows; returns what gets its reply."""
        if self._attempt is None:
            return None
        pending = Pending(self._socket.next_ref(), frames.LEAVE, frames.encode_payload(None))
        self._send(pending)
        self._attempt, self._joined = None, False
        return pending

    def _fall(self, why: str, *, pause: bool) -> None:
        """The membership in the server has ended, or is of no use."""
        self._joined = False
        sent, self._sent = self._sent, {}
        for pending in sent.values():
            pending.fail(partial(ReplyLost, f"the reply to {pending.event!r} of {self.name!r} is lost: {why}"))
        if self._attempt is not None:
            self._attempt.pause = pause
            self._attempt.answered.set()
            self._attempt.over.set()

    # -- frames -------------------------------------------------------------------------------------------------------

    def take(self, frame: ServerFrame) -> None:
        """Take a frame of the topic. Raises FrameError."""
        attempt = self._attempt
        if self._leaving is not None and frame.event in (frames.CLOSE, frames.ERROR):
            self._leaving.fail(lambda: TopicEnded(f"the server has ended {self.name!r}"))
        if frame.event == frames.REPLY and (pending := self._sent.get(frame.ref or "")) is not None:
            pending.answer(frame.payload["status"], frame.payload["response"])
        if attempt is None or (frame.join_ref is not None and frame.join_ref != attempt.ref):
            return  # of a membership that has ended
        if frame.event == frames.REPLY:
            if frame.ref == attempt.ref and not attempt.answered.is_set():
                self._take_answer(attempt, frame.payload["status"], frame.payload["response"])
        elif frame.event == frames.CLOSE:
            self._attempt = None
            self.end(lambda: TopicEnded(f"the server has ended {self.name!r}"))
        elif frame.event == frames.ERROR:
            self._fall("the topic has failed in the server", pause=True)
            self._attempt = None
        elif self._joined:
            self._take_message(frame)

    def _take_answer(self, attempt: Attempt, status: str, response: Any) -> None:
        if status == "ok":
            self._take_success(attempt, response)
            return
        self._attempt = None
        reason = response.get("reason") if isinstance(response, dict) else None
        if self._begun.is_set() and reason in TEMPORARY:
            attempt.answered.set()
        else:
            self.end(lambda: JoinFailed(response))

    def _take_success(self, attempt: Attempt, response: Any) -> None:
        self.response = response
        known = response if isinstance(response, dict) else {}
        recovered, position = known.get("recovered"), known.get("position")
        has_history = isinstance(recovered, bool) and isinstance(position, str)
        self.recovered, self.position = (recovered is True, position) if has_history else (False, None)
        if self._begun.is_set():
            self._buffer.put_rejoined(Rejoined(payload=response, position=self.position, recovered=self.recovered))
        self._joined = True
        self._begun.set()
        attempt.answered.set()
        while self._waiting:
            self._socket.waiting -= 1
            self._send(self._waiting.popleft())

    def _take_message(self, frame: ServerFrame) -> None:
        if frame.event in (frames.STATE, frames.DIFF):
            self.presence = presence.after(self.presence, frame.event, frame.payload)
        if frame.event == frames.POSITION:
            kept = not self._buffer.behind
        else:
            kept = self._buffer.put(Message(frame.event, frame.payload, frame.position))
        if kept and frame.position is not None:
            self.position = frame.position
