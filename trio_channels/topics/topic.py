"""The base class of topics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .._asgi.protocol import Message, Scope
from .._limits import SWITCH, Rule, at_least
from .._threads.database import run_in_thread
from ..exceptions import ConfigurationError, Refused
from ..layers.presence import PresenceState
from . import frames
from .broadcasting import broadcast
from .group import TopicGroup
from .handlers import Methods, check_sends, find_methods
from .patterns import Pattern

if TYPE_CHECKING:
    from .socket import TopicSocket

__all__ = ["Topic"]

#: The answer to a client without the permission.
FORBIDDEN = {"reason": "forbidden"}


def _or_none(rule: Rule) -> Rule:
    return Rule(f"None or {rule.expected}", lambda value: value is None or rule.holds(value))


_PENDING, _RATE = _or_none(at_least(1)), _or_none(at_least(0))


class Membership(Protocol):
    """The part of :class:`trio_channels.topics.membership.Membership` that a topic uses."""

    join_ref: frames.Ref

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any, name: object = None) -> None:
        """Start a task in the topic's nursery."""

    async def send(self, message: Message) -> None:
        """Send to the client, after the join's reply."""

    @property
    def group(self) -> TopicGroup:
        """The topic's place in the channel layer."""


class Topic:
    """One topic that one client has joined. Subclass it; an instance is made for each join.

    Its tasks are in a nursery of its own, below that of the socket. An exception of a handler or task ends this topic
    only: the client gets ``phx_error``, and joins again.

    Attributes:
        pattern: the names of the topics that this class serves, with Django's path converters: ``room:<slug:room>``.
        kwargs: the arguments in the topic's name, by the names in the pattern.
        topic: the topic's name.
        socket: the :class:`TopicSocket`, which all topics of a client share.
        pending_pushes: the number of pushes that may wait for a handler; None: ``TOPIC_PENDING_PUSHES``.
        shows_presence: whether the client is told of presence: with ``presence_state`` after the join's reply, and then
            with ``presence_diff``.
        pushes_per_second: the number of pushes of one client in a second; 0: any; None: ``TOPIC_PUSHES_PER_SECOND``.
        sends: the events that the topic sends, and the types of their payloads, for ``manage.py topics``:
            ``{"message.new": Message}``. What is sent is not checked.
    """

    pattern: ClassVar[str]
    pending_pushes: ClassVar[int | None] = None
    pushes_per_second: ClassVar[int | None] = None
    shows_presence: ClassVar[bool] = False
    sends: ClassVar[Mapping[str, Any]] = {}

    kwargs: dict[str, Any]
    topic: str
    socket: TopicSocket

    _membership: Membership

    _pattern: ClassVar[Pattern | None] = None
    _methods: ClassVar[Methods]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "pattern" in vars(cls):
            cls._pattern = Pattern(cls.pattern, cls.__name__)
        _PENDING.require(f"{cls.__name__}.pending_pushes", cls.pending_pushes)
        SWITCH.require(f"{cls.__name__}.shows_presence", cls.shows_presence)
        _RATE.require(f"{cls.__name__}.pushes_per_second", cls.pushes_per_second)
        check_sends(cls, cls.sends)
        cls._methods = find_methods(cls, Topic)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.topic!r}>"

    @property
    def scope(self) -> Scope:
        """The ASGI scope of the socket."""
        return self.socket.scope

    @property
    def user(self) -> Any:
        """The user of the socket.

        Raises:
            ConfigurationError: there is no user in the scope.
        """
        if "user" not in self.scope:
            raise ConfigurationError("there is no user in the scope; wrap the application in AuthMiddlewareStack")
        return self.scope["user"]

    if TYPE_CHECKING:
        # An override may be async or plain.
        def join(self, params: Any, /) -> Any: ...  # noqa: D102 - below
        def leave(self) -> Any: ...  # noqa: D102
    else:

        async def join(self, params: Any) -> Any:
            """Override: called when the client joins. Accepts by default.

            Annotate `params` with a type, as the payload of an event. Broadcasts to the topic that are sent meanwhile
            follow the reply.

            Args:
                params: the parameters that the client gives.

            Returns:
                The reply, as of a handler.

            Raises:
                JoinRefused: the client may not join; it carries the error reply.

            Cancellation: when the client leaves, joins again or disconnects.
            """

        async def leave(self) -> None:
            """Override: called once at every end of a topic whose ``join`` has returned.

            Cancellation: shielded, for ``DISCONNECT_TIMEOUT`` seconds.
            """

    async def push(self, event: str, payload: Any = None) -> None:
        """Send an event to this client only; in ``join``, after the reply.

        Args:
            event: the event's name.
            payload: a value that msgspec encodes as JSON, or bytes; an empty object by default.

        Raises:
            TypeError, ValueError: the payload cannot be encoded.
            ConnectionClosed: the client has gone. Uncaught it ends the handler normally.

        Cancellation: seen before the message goes to the server; later it may or may not arrive.
        """
        await self._membership.send(frames.push(self._membership.join_ref, self.topic, event, payload))

    async def broadcast(self, event: str, payload: Any = None) -> str | None:
        """Send an event to every client that has joined this topic, this one included.

        Args, Returns, Raises and cancellation: as :func:`trio_channels.topics.broadcast`.
        """
        return await broadcast(self.topic, event, payload, layer=self.socket.channel_layer)

    async def broadcast_from(self, event: str, payload: Any = None) -> str | None:
        """Send an event to every client that has joined this topic, but not to this one.

        Args, Returns, Raises and cancellation: as :func:`trio_channels.topics.broadcast`.
        """
        layer = self.socket.channel_layer
        exclude = () if layer is None else self.socket.channel_name
        return await broadcast(self.topic, event, payload, exclude=exclude, layer=layer)

    async def track(self, key: str, meta: dict[str, Any] | None = None) -> None:
        """Have this client be present in the topic, until it leaves; with another meta again, change that.

        Args:
            key: such as the user's id. A key may be there several times, once for each client.
            meta: what others learn of it.

        Raises:
            InvalidChannelLayerError: there is no channel layer, or it has no presence.
            TooManyTrackedKeys, MessageNotEncodable, MessageTooLarge, ChannelLayerUnavailable: as the layer's
                ``track_channel``.

        Cancellation: the key is tracked.
        """
        await self._membership.group.track(key, meta)

    async def untrack(self, key: str) -> None:
        """End a tracking at once; does nothing where there is none. Raises: as :meth:`track`. Cancellation: atomic."""
        await self._membership.group.untrack(key)

    async def presence(self) -> PresenceState:
        """The keys that are present in the topic, each with its metas. Raises: as :meth:`track`.

        Cancellation: nothing changes.
        """
        return await self._membership.group.presence()

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any, name: object = None) -> None:
        """Start a background task that ends with this topic at the latest. Its exception ends the topic as a handler's.

        Args:
            function: an async function, called with `args`.
            name: the task's name in error messages; the function's by default.
        """
        self._membership.start_soon(function, *args, name=name)

    async def authorize(self, permission: str, obj: Any = None) -> None:
        """Refuse the join or push unless the user has a permission, as ``user.has_perm`` says on a thread.

        Override it for rules of your own. Django's own backend knows no permissions for single objects.

        Args:
            permission: such as ``chat.view_room``.
            obj: the object, for backends that know such permissions.

        Raises:
            Refused: the user does not have it.
            ConfigurationError: there is no user in the scope.

        Cancellation: the wait for a thread can be cancelled.
        """
        if not await run_in_thread(self.user.has_perm, permission, obj):
            raise Refused(FORBIDDEN)
