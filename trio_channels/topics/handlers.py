"""Which methods of a topic handle which events, and the errors that are found when its class is made.

The rules:

- ``@event("message.new")`` makes a method the handler of that event. It takes the payload, and its result is the reply.
- An async method runs on Trio, and a plain one on a thread of the pool. An async generator streams replies.
- ``join``, ``leave`` and ``handle_out`` may be async or plain, too.
- An event has one handler. A method that overrides a handler has an ``@event`` of its own.
"""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from ..exceptions import ConfigurationError
from .payloads import PayloadType

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "_trio_channels_topic_event"


class Kind(enum.Enum):
    """How a method is called."""

    ASYNC = "async"
    THREAD = "plain"
    STREAM = "async generator"


class Handler(NamedTuple):
    """A method of a topic, and the type of its argument."""

    method: str
    kind: Kind
    payload: PayloadType


class Methods(NamedTuple):
    """The methods of a topic class that the framework calls; the handlers by event."""

    events: dict[str, Handler]
    join: Handler
    leave: Kind
    handle_out: Kind | None


#: The arguments that a method must take, by their number.
_WANTED = ("(self)", "(self, payload)", "(self, event, payload)")


def event(name: str) -> Callable[[F], F]:
    """Make a method of a :class:`Topic` the handler of a client's event.

    The method takes the payload, of the type that its annotation says: a ``msgspec.Struct``, a dict or another type
    that msgspec decodes, ``bytes`` for binary payloads. A payload that does not fit is answered with an error. The
    method's result is the reply. An async generator streams replies: one with the status ``ok`` for each value, and at
    the end one with the status ``end``.

    Args:
        name: the event, such as ``message.new``.

    Raises:
        ConfigurationError: the name is not a str, is empty, or begins with ``phx_``, as the protocol's own events.
    """
    given: object = name  # @event without a name is given the method
    if not isinstance(given, str) or not name or name.startswith("phx_"):
        raise ConfigurationError(
            f"@event expects a name such as 'message.new', which does not begin with 'phx_'; got {name!r}"
        )

    def mark(function: F) -> F:
        setattr(function, _MARK, name)
        return function

    return mark


def check_sends(cls: type, sends: object) -> None:
    """Refuse a declaration of sent events that is none. Raises ConfigurationError."""
    if not isinstance(sends, Mapping):
        raise ConfigurationError(f"{cls.__name__}.sends must be a dict of event and type; got {type(sends).__name__}")
    for name, kind in sends.items():
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"{cls.__name__}.sends: an event must have a name; got {name!r}")
        PayloadType(kind, f"{cls.__name__}.sends[{name!r}]")


def find_methods(cls: type, framework: type) -> Methods:
    """The methods of a topic class that the framework calls. Raises ConfigurationError for a class that cannot work."""
    join = _handler_of(cls, "join")
    _refuse_stream(join.kind, f"{cls.__name__}.join")
    sees_broadcasts = hasattr(cls, "handle_out")
    return Methods(
        events=_find_handlers(cls, framework),
        join=join,
        leave=_kind_with(cls, "leave", 0),
        handle_out=_kind_with(cls, "handle_out", 2) if sees_broadcasts else None,
    )


def _find_handlers(cls: type, framework: type) -> dict[str, Handler]:
    found: dict[str, Handler] = {}
    for method in sorted(dir(cls)):
        function = inspect.getattr_static(cls, method)
        name = getattr(getattr(function, "__func__", function), _MARK, None)  # of a static method, to refuse it
        if name is None:
            _refuse_unmarked(cls, method)
            continue
        if hasattr(framework, method) or method == "handle_out":
            raise ConfigurationError(
                f"{cls.__name__}.{method} cannot handle {name!r}: Topic.{method} is a method of every topic. Rename it"
            )
        if name in found:
            raise ConfigurationError(
                f"{cls.__name__}: the event {name!r} has two handlers, {found[name].method} and {method}; expected one"
            )
        found[name] = _handler_of(cls, method)
    return found


def _handler_of(cls: type, method: str) -> Handler:
    function, place = _function(cls, method, 1)
    return Handler(method, _kind_of(function, place), PayloadType(_annotation(cls, function, place), place))


def _kind_with(cls: type, method: str, arguments: int) -> Kind:
    function, place = _function(cls, method, arguments)
    return _refuse_stream(_kind_of(function, place), place)


def _function(cls: type, method: str, arguments: int) -> tuple[Callable[..., Any], str]:
    """A method that takes so many arguments, and its name in error messages."""
    place = f"{cls.__name__}.{method}"
    function = inspect.getattr_static(cls, method)
    if not inspect.isfunction(function):
        raise ConfigurationError(f"{place} must be a method; got {type(function).__name__}")
    try:
        inspect.signature(function).bind(None, *[None] * arguments)
    except TypeError:
        wanted = _WANTED[arguments]
        raise ConfigurationError(f"{place} must take {wanted}; it takes {inspect.signature(function)}") from None
    return function, place


def _refuse_unmarked(cls: type, method: str) -> None:
    """Refuse a method that hides a handler of a base class: its event would have none."""
    for base in cls.__mro__[1:]:
        hidden = getattr(vars(base).get(method), _MARK, None)
        if hidden is not None:
            raise ConfigurationError(
                f"{cls.__name__}.{method} overrides the handler of {hidden!r} in {base.__name__}: "
                f"write @event({hidden!r}) above it, too"
            )


def _kind_of(function: Callable[..., Any], place: str) -> Kind:
    inner = inspect.unwrap(function)  # of a decorator that passes on what the method returns
    if inspect.isasyncgenfunction(inner):
        return Kind.STREAM
    if inspect.isgeneratorfunction(inner):
        raise ConfigurationError(f"{place} is a plain generator; a stream of replies must be 'async def' with 'yield'")
    return Kind.ASYNC if inspect.iscoroutinefunction(inner) else Kind.THREAD


def _refuse_stream(kind: Kind, place: str) -> Kind:
    if kind is Kind.STREAM:
        raise ConfigurationError(f"{place} is an async generator; only the handlers of events may be one")
    return kind


def _annotation(cls: type, function: Callable[..., Any], place: str) -> Any:
    """The annotation of a handler's payload, its only argument."""
    name = _name_of_argument(function)
    return Any if name is None else _hints(cls, function, place).get(name, Any)


def annotations_of(cls: type, method: str) -> tuple[Any, Any]:
    """The annotations of a handler's payload and of its result; Any for one that there is not."""
    function, place = _function(cls, method, 1)
    return _annotation(cls, function, place), _hints(cls, function, place).get("return", Any)


def _name_of_argument(function: Callable[..., Any]) -> str | None:
    parameters = list(inspect.signature(inspect.unwrap(function)).parameters.values())
    if len(parameters) < 2 or parameters[1].kind is inspect.Parameter.VAR_POSITIONAL:
        return None
    return parameters[1].name


def _hints(cls: type, function: Callable[..., Any], place: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.unwrap(function), localns=dict(vars(cls)), include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"the annotations of {place} cannot be evaluated: {error}. Define or import the type at the top of the "
            f"module, above the class, and not below 'if TYPE_CHECKING'"
        ) from error
