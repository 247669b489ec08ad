"""One session of long-polling: to the application a WebSocket, to the client a token for its requests."""

from __future__ import annotations

import logging
import math
from typing import Any, NamedTuple

import trio

from ... import _conf
from ..._asgi.close_codes import ABNORMAL, INTERNAL_ERROR, INVALID_DATA, NORMAL, POLICY_VIOLATION, SERVICE_RESTART
from ..._asgi.protocol import DIRECT, ASGIApplication, Message, Scope, describe, note_connection
from ..._concurrency import YIELD_EVERY
from ..._concurrency.exception_groups import bare
from ..._concurrency.queues import Inbox
from ..._concurrency.rate import Rate
from .batches import BatchError, data_of, messages_of, text_of
from .outgoing import Data, Outgoing

logger = logging.getLogger("trio_channels.topics")

#: The close code for a message that is too long (RFC 6455, 7.4.1).
TOO_LONG = 1009


class Answer(NamedTuple):
    """The answer to a request: the status that the client reads, and its messages.

    That to a read has more: the number of the stream; that of the last message so far; if the session has ended, the
    close code and its reason.
    """

    status: int
    messages: list[Data] = []
    stream: int = 0
    last: int = 0
    end: tuple[int, str] | None = None


GONE, NOTHING, TAKEN, CONFLICT, NO_BATCH = Answer(410), Answer(204), Answer(200), Answer(409), Answer(400)


class Session:
    """One session.

    Attributes:
        scope: that of the application.
        origin: the Origin that its client has named; None if it named none.
        decided: set when the application has accepted the client, or not.
        accepted: whether it has.
        headers, status: of the answer to the client: those that the application gave; the status of a denial.
        token: for the client's polls and posts.
    """

    def __init__(self, scope: Scope, origin: bytes | None) -> None:
        limits = _conf.limits()
        self._inbox = Inbox(limits.read_ahead)
        self.scope: Scope = {**scope, "extensions": {**scope["extensions"], DIRECT: self._inbox}}
        self.origin = origin
        self.decided = trio.Event()
        self.accepted = False
        self.headers: list[tuple[bytes, bytes]] = []
        self.status = 403  # of a denial
        self.token = ""
        self._end: tuple[int, str] | None = None  # the close code, and its reason
        self._timeout: float = _conf.get("LONG_POLL_TIMEOUT")
        self._longest: int = _conf.get("MAX_MESSAGE_SIZE")
        self._rate = Rate(_conf.get("MESSAGES_PER_SECOND"))
        self._outgoing = Outgoing(_conf.get("LONG_POLL_BUFFER"))
        self._senders = trio.lowlevel.ParkingLot()  # wait until the client has fetched messages
        self._polls = trio.lowlevel.ParkingLot()  # wait for a message
        self._poll: object | None = None  # the newest poll or read
        self._stream = 0  # the number of the newest stream, or of the poll that has ended it
        self._streams = False  # the client streams, and so it must be told of the end
        self._posting = False
        self._received = 0  # the number of the last message from the client
        self._patience = trio.CancelScope()  # its deadline is when the client counts as gone
        self._inbox.offer({"type": "websocket.connect"})

    def __repr__(self) -> str:
        state = "over" if self._over else "open" if self.accepted else "opening"
        return f"<Session of {describe(self.scope)}: {state}, {self._outgoing.unsent} messages waiting>"

    @property
    def _over(self) -> bool:
        return self._end is not None

    # -- its life -----------------------------------------------------------------------------------------------------

    async def run(self, application: ASGIApplication, ending: trio.Event) -> None:
        """Run the application until it ends. Raises nothing else. Cancellation: the application's."""
        failure: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, ending)
                await application(self.scope, self._inbox.receive, self.send)
                nursery.cancel_scope.cancel()
        except Exception as error:
            failure = error
        if failure is not None:
            cause = bare(failure)
            note_connection(cause, self.scope)
            logger.error("the application has failed in a session of long-polling", exc_info=cause)
            self.status = 500
        self.end(INTERNAL_ERROR if failure is not None else NORMAL, "")
        with trio.move_on_after(self._timeout):  # for the client to fetch the rest
            while self._outgoing.unsent or self._streams:
                await self._senders.park()

    async def _watch(self, ending: trio.Event) -> None:
        """End the session when its client has gone, or the server ends."""
        with self._patience:
            await ending.wait()
            self.status = 503
            self.end(SERVICE_RESTART, "the server restarts")
            return
        self.vanish(f"no poll for {self._timeout:g} seconds")

    def _wait_for_client(self) -> None:
        self._patience.deadline = trio.current_time() + self._timeout

    def vanish(self, reason: str) -> None:
        """End the session of a client that has gone."""
        self._leave(ABNORMAL, reason)

    def close(self) -> None:
        """End the session as its client wishes."""
        self._leave(NORMAL, "")

    def _leave(self, code: int, reason: str) -> None:
        self._outgoing.take()
        self._streams = False
        self.end(code, reason)

    def end(self, code: int, reason: str) -> None:
        """Tell the application of the disconnect, and the client that its session is gone. Idempotent."""
        self._end = self._end or (code, reason)
        self.decided.set()
        self._inbox.end({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._polls.unpark_all()
        self._senders.unpark_all()

    # -- for the application ------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """The ASGI ``send`` of the session. It waits while the client does not fetch what waits for it.

        Cancellation: the message is not sent.
        """
        kind = message["type"]
        if kind == "websocket.send":
            await self._put(data_of(message))
        elif kind == "websocket.accept":
            self.accepted, self.headers = True, list(message.get("headers") or ())
            self._wait_for_client()
            self.decided.set()
        elif kind == "websocket.close":
            self.end(message.get("code") or NORMAL, message.get("reason") or "")
        elif kind == "websocket.http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers") or ())
        elif not message.get("more_body"):  # of websocket.http.response.body
            self.end(NORMAL, "")

    async def _put(self, message: Data) -> None:
        if (self._senders or self._outgoing.is_full) and not self._over:
            await self._senders.park()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        if not self._over:
            self._outgoing.put(message)
            self._polls.unpark_all()
        if not self._outgoing.is_full:
            self._senders.unpark()

    # -- for the client -----------------------------------------------------------------------------------------------

    async def poll(self, seconds: float) -> Answer:
        """Wait for messages, `seconds` at most; a newer poll ends an older one.

        Cancellation: no message is taken, and the client counts as gone after ``LONG_POLL_TIMEOUT``.
        """
        self._stream += 1
        self._streams = False
        if not await self._wait(0 if self._outgoing else seconds):
            return NOTHING
        messages = self._outgoing.take()
        self._wake_senders()
        if messages:
            return Answer(200, [text_of(message) for message in messages])
        return GONE if self._over else NOTHING

    async def read(self, stream: int, number: int, seconds: float) -> Answer:
        """Wait for the messages of a stream behind a number, `seconds` at most; a newer stream ends an older one.

        Args:
            stream: its number; 0: a stream begins, with the first message that its client does not have. It does not
                wait.
            number: of the last message that was sent on it, or that its client has.

        Cancellation: no message is taken, and the client counts as gone after ``LONG_POLL_TIMEOUT``.
        """
        if not stream:
            if not self._outgoing.resume(number):
                self.vanish("it cannot resume: messages that it does not have are gone")
                return GONE
            self._streams = True
            self._stream += 1
            stream, seconds = self._stream, 0
        if stream != self._stream or not await self._wait(seconds):
            return CONFLICT
        messages, last = self._outgoing.send_after(number)
        self._wake_senders()
        if messages:
            return Answer(200, messages, stream, last)
        return Answer(GONE.status, end=self._end) if self._over else Answer(NOTHING.status, [], stream, last)

    async def _wait(self, seconds: float) -> bool:
        """Wait for a message or the end, `seconds` at most; returns whether no newer poll or read has come."""
        self._poll = this = object()
        self._polls.unpark_all()
        self._patience.deadline = math.inf
        try:
            with trio.move_on_after(seconds):
                while not self._outgoing.unsent and not self._over and self._poll is this:
                    await self._polls.park()
            return self._poll is this
        finally:
            if self._poll is this:
                self._poll = None
                self._wait_for_client()

    def _wake_senders(self) -> None:
        self._senders.unpark_all() if self._over else self._senders.unpark()

    def acknowledge(self, number: int) -> None:
        """Forget messages that the client has."""
        self._outgoing.acknowledge(number)

    async def post(self, body: bytes, content_type: bytes, number: int = 0) -> Answer:
        """Give the application the messages of a post, as fast as it takes them; one that is none ends the session.

        Args:
            number: of the first message, if the client numbers them, from 1 on: those that have come are skipped, so
                that a post can be sent again. 0: it does not.

        Cancellation: the first messages may have been delivered.
        """
        if self._posting:
            return CONFLICT  # its body would have to wait in memory
        self._posting = True
        try:
            if number > self._received + 1:
                raise BatchError(f"expected message {self._received + 1}, got {number}")
            known = self._received - number + 1 if number else 0
            for count, message in enumerate(messages_of(body, content_type)):
                if self._over:
                    return GONE
                if count >= known:
                    await self._receive(message)
                    self._received += 1
                elif count % YIELD_EVERY == 0:  # a hostile post has millions
                    await trio.lowlevel.checkpoint()
        except BatchError as error:
            self.end(INVALID_DATA, str(error))
            return NO_BATCH
        finally:
            self._posting = False
        return GONE if self._over else TAKEN

    async def _receive(self, message: str | bytes) -> None:
        if len(message) > self._longest:
            self.end(TOO_LONG, f"more than {self._longest} bytes in a message")
        elif self._rate.exceeded():
            self.end(POLICY_VIOLATION, f"more than {self._rate.per_second} messages a second")
        else:
            data: dict[str, Any] = {"text": message} if isinstance(message, str) else {"bytes": message}
            await trio.lowlevel.checkpoint_if_cancelled()
            await self._inbox({"type": "websocket.receive", **data})
