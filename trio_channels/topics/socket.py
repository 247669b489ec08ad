"""The socket of the Phoenix Channels protocol: one WebSocket that carries many topics."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, cast
from urllib.parse import parse_qsl
from weakref import WeakSet

from .. import _conf
from .._asgi.close_codes import INVALID_DATA
from .._asgi.content import BROADCAST, client_message
from .._asgi.protocol import Message, Receive, Scope, Send
from .._concurrency.rate import Rate
from .._concurrency.wakeup import Wakeup
from ..consumer.base import ConsumerApplication
from ..consumer.handlers import handles_client_event
from ..exceptions import ConfigurationError, DenyConnection
from ..generic._websocket_protocol import Headers
from ..generic.websocket import AsyncWebsocketConsumer
from ..layers.history import KEY, NOT_RECOVERED
from ..layers.message import Envelope
from . import frames
from .frames import Frame
from .membership import TOO_MANY_PENDING, Membership
from .patterns import Router
from .presence import CHANGE
from .resuming import position_frame, positioned, with_position
from .slot import Slot
from .topic import Topic

__all__ = ["TopicSocket"]

SUBPROTOCOL, TOKEN_PREFIX = "phoenix", "base64url.bearer.phx."

UNMATCHED_TOPIC = {"reason": "unmatched topic"}
TOO_MANY_TOPICS = {"reason": "too many topics"}


#: The applications that were made and are in use, for ``manage.py topics``.
applications: WeakSet[Any] = WeakSet()


class TopicSocket(AsyncWebsocketConsumer):
    """A WebSocket that speaks the Phoenix Channels protocol, version 2, and carries many topics.

    Route it as a consumer: ``path("socket/websocket", TopicSocket.as_asgi(topics=[Room, Notifications]))``. Override
    ``connect`` to look at :attr:`params`, and to deny a client; see :class:`AsyncWebsocketConsumer`.

    Attributes:
        topics: the topics of every socket of the class, if ``as_asgi`` is given none.

    Cancellation: as of any consumer; every topic ends, and its ``leave`` runs.
    """

    topics: ClassVar[Iterable[type[Topic]]] = ()

    _router: Router | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.handler_concurrency != 1:
            raise ConfigurationError(
                f"{cls.__name__}.handler_concurrency must be 1, as topics run side by side anyway; "
                f"got {cls.handler_concurrency}"
            )

    @classmethod
    def as_asgi(cls, *, topics: Iterable[type[Topic]] | None = None, **initkwargs: Any) -> ConsumerApplication:
        """An ASGI application that makes an instance of this class for each connection.

        Args:
            topics: the classes of topics; the first whose pattern matches serves a topic.
            initkwargs: keyword arguments for each call of the class.

        Raises:
            ConfigurationError: a topic has no pattern, or could never be reached; or the class does not take the
                arguments.
        """
        made = super().as_asgi(**initkwargs)
        router = Router(cls.topics if topics is None else topics, Topic)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            socket = cls(**initkwargs)
            socket._router = router
            await socket(scope, receive, send)

        functools.update_wrapper(application, made)
        application.topics = router.topics  # type: ignore[attr-defined]
        applications.add(application)
        return cast(ConsumerApplication, application)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one connection. Raises and cancellation: as any consumer's."""
        if self._router is None:
            self._router = Router(self.topics, Topic)
        self._slots: dict[str, Slot] = {}
        self._slot_ended = Wakeup()
        self._pending = 0  # bytes of frames that are waiting or being handled
        self._watchers: dict[str, Membership] = {}  # by the group whose presence the client sees
        await super().__call__(scope, receive, send)

    @property
    def params(self) -> dict[str, str]:
        """The parameters of the client's ``Socket``, which are those of the address."""
        return dict(parse_qsl(self.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))

    @property
    def auth_token(self) -> str | None:
        """The ``authToken`` of the client's ``Socket``; None if it gives none, or no valid one."""
        for offered in self.scope.get("subprotocols", ()):
            if offered.startswith(TOKEN_PREFIX):
                encoded = offered.removeprefix(TOKEN_PREFIX).replace("+", "-").replace("/", "_")
                try:
                    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
                except ValueError:
                    return None
        return None

    # -- the WebSocket ------------------------------------------------------------------------------------------------

    @handles_client_event
    async def websocket_connect(self, message: Message) -> None:
        """Denies other versions of the protocol; calls ``connect``."""
        version = self.params.get("vsn", "2.0.0")
        if not version.startswith("2."):
            body = b"Expected version 2.0.0 of the Phoenix Channels protocol, in the parameter vsn.\n"
            await self._deny(DenyConnection(403, [(b"content-type", b"text/plain")], body))
            return
        await super().websocket_connect(message)

    async def accept(self, subprotocol: str | None = None, headers: Headers | None = None) -> None:
        """Accept the WebSocket, by default with the subprotocol ``phoenix`` if the client offers it.

        Args, Raises and cancellation: as :meth:`AsyncWebsocketConsumer.accept`.
        """
        if subprotocol is None and SUBPROTOCOL in self.scope.get("subprotocols", ()):
            subprotocol = SUBPROTOCOL
        await super().accept(subprotocol, headers)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Passes a frame on to its topic; closes with 1007 at a message that is no frame."""
        try:
            frame = frames.decode(text_data if text_data is not None else bytes_data or b"")
        except frames.FrameError as error:
            await self.close(INVALID_DATA, str(error))
            return
        answer = self._route(frame)
        if answer is not None:
            await self._connection.send(answer)

    @handles_client_event
    async def websocket_disconnect(self, message: Message) -> None:
        """Ends every topic, then calls ``disconnect``."""
        for slot in self._slots.values():
            slot.end(at_once=self.cancel_on_disconnect)
        while self._slots:
            await self._slot_ended.wait()
        await super().websocket_disconnect(message)

    # -- frames -------------------------------------------------------------------------------------------------------

    def _route(self, frame: Frame) -> Message | None:
        """Pass a frame on; returns an answer that needs no topic."""
        if frame.topic == frames.SOCKET_TOPIC:
            return _answer(frame, None if frame.event == frames.HEARTBEAT else UNMATCHED_TOPIC)
        if frame.event == frames.JOIN:
            return self._join_topic(frame)
        slot = self._slots.get(frame.topic)
        membership = None if slot is None else slot.newest
        if membership is None:
            return _answer(frame, None if frame.event == frames.LEAVE else UNMATCHED_TOPIC)
        if membership.join_ref is not None and membership.join_ref != frame.join_ref:
            return None  # of a membership that has ended, as the client has been told
        if frame.event == frames.LEAVE:
            membership.leave(frame)
            return None
        refusal = membership.offer(frame)
        return None if refusal is None else _answer(frame, refusal, membership.join_ref)

    def _join_topic(self, frame: Frame) -> Message | None:
        found = cast(Router, self._router).resolve(frame.topic)
        if found is None:
            return _answer(frame, UNMATCHED_TOPIC, frame.join_ref)
        if not self._reserve(frame.size):
            return _answer(frame, TOO_MANY_PENDING, frame.join_ref)
        slot = self._slots.get(frame.topic)
        is_new = slot is None
        if slot is None:
            if len(self._slots) >= _conf.get("TOPICS_PER_SOCKET"):
                self._release(frame.size)
                return _answer(frame, TOO_MANY_TOPICS, frame.join_ref)
            slot = self._slots[frame.topic] = Slot(frame.topic, self._end_of_slot)
        answer = slot.join(Membership(self, *found, frame))
        if is_new:
            self._connection.nursery.start_soon(slot.run, name=f"topic {frame.topic!r}")
        return answer

    def _end_of_slot(self, slot: Slot) -> None:
        del self._slots[slot.topic]
        self._slot_ended.set()

    def _reserve(self, size: int) -> bool:
        """Make room for a frame; returns whether there is. One frame alone always has room."""
        if self._pending and self._pending + size > _conf.get("TOPIC_PENDING_BYTES"):
            return False
        self._pending += size
        return True

    def _release(self, size: int) -> None:
        self._pending -= size

    def _rate_of(self, topic: type[Topic]) -> Rate:
        given = topic.pushes_per_second
        return Rate(_conf.get("TOPIC_PUSHES_PER_SECOND") if given is None else given)

    def _room_of(self, topic: type[Topic]) -> int:
        """The pushes that may wait for a topic."""
        given = topic.pending_pushes
        return int(_conf.get("TOPIC_PENDING_PUSHES")) if given is None else given

    # -- broadcasts ---------------------------------------------------------------------------------------------------

    def _member(self, message: Message) -> Membership | None:
        """The membership that a broadcast is for."""
        slot = self._slots.get(message["topic"])
        membership = None if slot is None else slot.current
        return None if membership is None or membership.over else membership

    def _broadcaster(self) -> Callable[[Envelope], bool]:
        return self._broadcast

    def _broadcast(self, envelope: Envelope) -> bool:
        """Write a broadcast to the client at once, without the topic's task; returns whether that is done."""
        if "topic" in envelope.message:
            membership = self._member(envelope.message)
            if membership is None:
                return True
            if not membership.passes:
                return False
            if KEY in envelope.message:
                return "text" in envelope.message and self._connection.broadcast(positioned(envelope))
        return self._connection.broadcast(envelope)

    def _from_layer(self, message: Message) -> Any:
        if message.get("type") == "channel.layer.gap":
            if message["reason"] == NOT_RECOVERED:
                return None  # the reply to the join says so
            for current in [slot.current for slot in self._slots.values() if slot.current is not None]:
                current.lose(f"the channel layer has lost messages ({message['reason']})")
        if message.get("type") == CHANGE and (watcher := self._watchers.get(message["group"])) is not None:
            change = watcher.tell(message)
            return None if change is None else self._connection.send(change)
        if message.get("type") != BROADCAST or "topic" not in message:
            return super()._from_layer(message)
        membership = self._member(message)
        if membership is None:
            return None
        if not membership.passes:
            membership.take(message)
            return None
        if KEY in message:
            return self._with_position(message)
        return self._to_client(cast(Message, client_message(message)))

    async def _with_position(self, message: Message) -> None:
        await self._to_client(with_position(message))
        if "bytes" in message:
            await self._to_client(cast(Message, position_frame(message)))


def _answer(frame: Frame, error: object | None, join_ref: frames.Ref = None) -> Message | None:
    """The reply to a frame: an error, or ok. None if the client wants no reply."""
    if frame.ref is None:
        return None
    return frames.reply(join_ref, frame.ref, frame.topic, "ok" if error is None else "error", error)
