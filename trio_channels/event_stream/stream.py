"""The view: who may read which streams, and how messages become events."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.views import View

from .. import _conf
from .._asgi.protocol import ASGIApplication, describe
from .._concurrency.drain import DRAIN, Drain
from .._threads.database import run_in_thread
from ..exceptions import ConfigurationError, InvalidChannelLayerError
from ..layers import DEFAULT_CHANNEL_LAYER, get_channel_layer
from ..layers.base import ChannelLayer
from . import application
from .following import Source, follow
from .messages import as_text
from .names import checked, group_for
from .signing import read_signature
from .wire import LAST_EVENT_ID

#: The parameters of the address: the signed names, and where to begin.
STREAM, SINCE = "stream", "since"

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventStream(View):
    """A view of server-sent events: the messages of groups of the channel layer, and of topics.

    ``path("events/", EventStream.as_view(groups=["news"]))``. A name with a colon is a topic's, any other a group's.
    Each event has the position in the group's history as its id, so that a browser that comes back gets what it has
    missed.

    Attributes:
        groups: the groups and topics, 50 at most.
        signed: whether they are those of the signed parameter ``stream`` instead; see ``{% trio_stream %}``.
        templates: the name of an event -> a template, which makes its data from ``event``, ``payload`` and ``request``.
        heartbeat: the seconds without an event after which a comment is sent; None: ``EVENT_STREAM_HEARTBEAT``.
        retry: the seconds, and up to twice as many, after which a client comes back; None: ``EVENT_STREAM_RETRY``.
        channel_layer_alias: the entry of ``CHANNEL_LAYERS`` to use.
        channel_layer: the channel layer, in place of an entry.

    Cancellation: the membership ends.
    """

    http_method_names: ClassVar[list[str]] = ["get", "head", "options"]  # type: ignore[misc]  # Django's is no ClassVar

    groups: Iterable[str] = ()
    signed: bool = False
    templates: Mapping[str, str] = {}
    heartbeat: float | None = None
    retry: float | None = None
    channel_layer_alias: str = DEFAULT_CHANNEL_LAYER
    channel_layer: ChannelLayer | None = None

    def __init__(self, **initkwargs: Any) -> None:
        super().__init__(**initkwargs)
        for name in ("heartbeat", "retry"):
            if getattr(self, name) is not None:
                rule = _conf.SETTINGS[f"EVENT_STREAM_{name.upper()}"].rule
                rule.require(f"{type(self).__name__}.{name}", getattr(self, name))

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> ASGIApplication:
        """The same as an ASGI application, for a URLRouter. Raises TypeError as ``as_view``.

        Args:
            initkwargs: attributes of the view.
        """
        return application.of(cast(Any, cls.as_view(**initkwargs)))

    if TYPE_CHECKING:
        # An override may be async or plain.
        def get_groups(self) -> Any: ...  # noqa: D102 - below
        def authorize(self, request: HttpRequest, name: str, /) -> Any: ...  # noqa: D102
        def encode(self, event: str, payload: Any, /) -> Any: ...  # noqa: D102
    else:

        async def get_groups(self) -> Iterable[str]:
            """Override: the groups and topics of this request, such as ``[f"room:{self.kwargs['room']}"]``.

            An override may be async; a plain one runs on any thread of the pool. The same holds for the methods below.
            """
            return self.groups

        async def authorize(self, request: HttpRequest, name: str) -> bool:
            """Override: whether the client may read this group or topic; by default any client may.

            It is called for each name, each time that a client comes, also with a signed stream. False, or
            PermissionDenied, is answered with 403: the client does not come back.

            Args:
                request: the request; its user is ``await request.auser()``.
                name: the group or topic.
            """
            return True

        async def encode(self, event: str, payload: Any) -> str | tuple[str, str] | None:
            """Override: the data of an event; by default JSON, or a template of :attr:`templates`.

            A payload that is a str is sent as it is. If this method fails, the client gets a ``stream.gap``.

            Args:
                event: the event's name: that of a topic's broadcast, ``message`` for a ``group_broadcast``, otherwise
                    the message's type.
                payload: that of the topic's broadcast, the text or bytes of the ``group_broadcast``, otherwise the
                    message without its type.

            Returns:
                The data; or the name and the data; or None, and the client gets no event.
            """
            template = self.templates.get(event)
            if template is None:
                return as_text(payload)
            context = {"event": event, "payload": payload}
            return await _call(render_to_string, template, context, self.request)

    async def get(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> HttpResponseBase:
        """Answer with the stream, or with 403. Cancellation: of the stream, as the class says."""
        names, since = await self._names(request)
        for name in names:
            if not await _call(self.authorize, request, name):
                raise PermissionDenied
        if request.method == "HEAD":
            return HttpResponse(content_type="text/event-stream", headers=_HEADERS)
        source = self._source(request, names, request.headers.get(LAST_EVENT_ID) or since or None)
        return StreamingHttpResponse(follow(source), content_type="text/event-stream", headers=_HEADERS)

    async def _names(self, request: HttpRequest) -> tuple[tuple[str, ...], str | None]:
        """The names of the stream, and where it begins."""
        if not self.signed:
            return checked(await _call(self.get_groups)), request.GET.get(SINCE)
        signed = read_signature(request.GET.get(STREAM, ""))
        if signed is None or (signed.is_bound and not signed.is_for(await _user(request))):
            raise PermissionDenied
        return signed.names, signed.since

    def _source(self, request: HttpRequest, names: Iterable[str], last_event_id: str | None) -> Source:
        layer = self.channel_layer or get_channel_layer(self.channel_layer_alias)
        if layer is None:
            raise InvalidChannelLayerError(
                f"{type(self).__name__} needs a channel layer, but CHANNEL_LAYERS has no entry "
                f"{self.channel_layer_alias!r}"
            )
        scope = getattr(request, "scope", {})  # Django's test client has none
        return Source(
            layer=layer,
            groups=tuple(dict.fromkeys(map(group_for, names))),
            last_event_id=last_event_id,
            encode=self._encoded,
            heartbeat=_conf.get("EVENT_STREAM_HEARTBEAT") if self.heartbeat is None else self.heartbeat,
            retry=_conf.get("EVENT_STREAM_RETRY") if self.retry is None else self.retry,
            drain=scope.get("extensions", {}).get(DRAIN) or Drain(),
            place=describe(scope) if scope else f"an event stream at {request.path}",
        )

    async def _encoded(self, event: str, payload: Any) -> tuple[str, str] | None:
        made = await _call(self.encode, event, payload)
        return (event, made) if isinstance(made, str) else made


async def _user(request: HttpRequest) -> Any:
    if not hasattr(request, "auser"):
        raise ConfigurationError(
            "a stream that is signed for a user needs the user of its request: add AuthenticationMiddleware to "
            "MIDDLEWARE, or put AuthMiddlewareStack around the router"
        )
    return await request.auser()


async def _call(function: Callable[..., Any], *args: Any) -> Any:
    """Await an async function; run a plain one on a thread, which the request does not keep."""
    if inspect.iscoroutinefunction(function):
        return await cast(Callable[..., Awaitable[Any]], function)(*args)
    return await run_in_thread(lambda: function(*args), neutral=True)
