"""Applications that need asyncio, or that are none, are refused when a router or a server gets them.

Those for asyncio are recognised by the names of their classes, so that no package is imported for it. Only those are
refused that were measured to fail on Trio. Starlette, FastAPI and Litestar run on Trio, by AnyIO.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping

from ..exceptions import ConfigurationError

#: For an application of ours on a server, or below a router, that runs on asyncio.
NOT_TRIO = (
    "trio-channels needs a server that runs on Trio, and this one does not: use `trio-channels serve`, "
    "or `hypercorn --worker-class trio`"
)

_OWN_SERVER = "serve it with a server for asyncio, in a process of its own"

#: The base class of the applications, by its full name -> the remedy.
_NEEDS_ASYNCIO = {
    "django.core.handlers.asgi.ASGIHandler": (
        "in your asgi.py, import get_asgi_application from trio_channels.asgi, not from django.core.asgi"
    ),
    "django.contrib.staticfiles.handlers.ASGIStaticFilesHandler": (
        "use StaticFilesHandler of trio_channels.staticfiles"
    ),
    "channels.consumer.AsyncConsumer": "",  # _remedy_for_channels() completes the three of Channels
    "channels.routing.ProtocolTypeRouter": "",
    "channels.security.websocket.OriginValidator": "",
    "a2wsgi.wsgi.WSGIMiddleware": "use TrioWSGIMiddleware of hypercorn.middleware",
    "hypercorn.middleware.wsgi.AsyncioWSGIMiddleware": "use TrioWSGIMiddleware of hypercorn.middleware",
    "engineio.async_drivers.asgi.ASGIApp": _OWN_SERVER,
    "quart.app.Quart": "use QuartTrio of quart_trio",
    "sanic.app.Sanic": _OWN_SERVER,
}

#: Packages whose subclasses of these run on Trio.
_RUN_ON_TRIO = ("trio_channels", "quart_trio")

#: The attributes in which routers, middlewares and mounts keep other applications, and as_asgi() the consumer class.
_KEPT_IN = (
    *("app", "application", "application_mapping", "callback", "consumer_class", "inner", "mounts", "router", "routes"),
)


def refuse_foreign(*applications: object) -> None:
    """Raise ConfigurationError if an application, or one that it keeps for its own calls, needs asyncio."""
    for application in _with_inner(applications):
        kind = application if isinstance(application, type) else type(application)
        for cls in kind.__mro__:
            name = f"{cls.__module__}.{cls.__qualname__}"
            if name.startswith(_RUN_ON_TRIO):
                break
            if name in _NEEDS_ASYNCIO:
                raise ConfigurationError(
                    f"expected an application that runs on Trio; got {kind.__module__}.{kind.__qualname__}, which "
                    f"needs asyncio: {_NEEDS_ASYNCIO[name] or _remedy_for_channels(kind)}"
                )


def refuse_other_callables(*applications: object) -> None:
    """Raise ConfigurationError for something that a server could not call as an ASGI application."""
    for application in applications:
        if isinstance(application, type) and hasattr(application, "as_asgi"):
            name = application.__name__
            raise ConfigurationError(f"expected an ASGI application; got the class {name}. Route to {name}.as_asgi()")
        got = _other_callable(application)
        if got is not None:
            raise ConfigurationError(f"expected an ASGI application, a callable for scope, receive and send; got {got}")


def _other_callable(application: object) -> str | None:
    if not callable(application):
        return f"a value of the type {type(application).__name__}"
    try:
        # A consumer's application wraps its class, which takes other arguments.
        signature = inspect.signature(application, follow_wrapped=False)
    except Exception:  # C code does not tell, and the attributes of a proxy may do anything
        return None
    arguments = tuple(signature.parameters)
    if arguments[:1] == ("request",):
        return f"the view {_name_of(application)}. Put views into urls.py, which get_asgi_application() serves"
    if arguments == ("environ", "start_response"):
        return (
            f"{_name_of(application)}, which is for WSGI. Use the application of your asgi.py, such as "
            f"mysite.asgi:application"
        )
    try:
        signature.bind("scope", "receive", "send")
    except TypeError:
        owner = getattr(application, "__self__", None)
        if isinstance(owner, type) and hasattr(owner, "as_asgi") and application == owner.as_asgi:
            return f"{owner.__name__}.as_asgi itself. Call it: {owner.__name__}.as_asgi()"
        return f"{_name_of(application)}, which takes ({', '.join(arguments)})"
    return None


def _name_of(application: object) -> str:
    return str(getattr(application, "__qualname__", type(application).__qualname__))


def _remedy_for_channels(kind: type) -> str:
    """Channels' class and ours have the same name, and the same module but for the package."""
    base = next(cls for cls in kind.__mro__ if cls.__module__.startswith("channels."))
    return f"import {base.__name__} from trio_{base.__module__}, not from {base.__module__}"


def _with_inner(applications: Iterable[object]) -> Iterator[object]:
    """The applications, and those that they keep in attributes of the usual names, at any depth; each once."""
    ahead, seen = list(applications), set[int]()
    while ahead:
        application = ahead.pop()
        if id(application) in seen:
            continue
        seen.add(id(application))
        yield application
        # Not by getattr(): a property, or a __getattr__, may do anything.
        kept = getattr(application, "__dict__", {})
        for value in [kept[name] for name in _KEPT_IN if name in kept]:
            if isinstance(value, Mapping):
                ahead.extend(value.values())
            elif isinstance(value, list | tuple):
                ahead.extend(value)
            else:
                ahead.append(value)
