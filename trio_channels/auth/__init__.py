"""Django's users in the scope, and login and logout over a connection.

``django.contrib.auth`` does the work: it verifies the session's hash, honours ``SECRET_KEY_FALLBACKS``, cycles keys on
login and sends signals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import auth
from django.core.exceptions import ValidationError
from django.utils.functional import LazyObject, empty

from .. import _conf
from .._asgi.protocol import ASGIApplication, Receive, Scope, Send
from .._threads.database import run_in_thread
from ..exceptions import ConfigurationError
from ..sessions import CookieMiddleware, SessionMiddleware, load_session
from .recheck import Recheck

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
    from django.contrib.sessions.backends.base import SessionBase

__all__ = ["AuthMiddleware", "AuthMiddlewareStack", "get_user", "login", "logout"]


class _SessionOnly:
    """The only attribute of a request that ``django.contrib.auth.get_user`` reads."""

    def __init__(self, session: SessionBase) -> None:
        self.session = session


def _session_of(scope: Scope) -> SessionBase:
    if "session" not in scope:
        raise ConfigurationError("there is no session in the scope; wrap the application in AuthMiddlewareStack")
    session: SessionBase = scope["session"]
    return session


async def get_user(scope: Scope) -> AbstractBaseUser | AnonymousUser:
    """The user of the scope's session, or ``AnonymousUser``; a session with invalid contents raises no error.

    Without a session cookie no thread is used.

    Raises:
        ConfigurationError: there is no session in the scope.

    Cancellation: as a call of :func:`trio_channels.sync.sync_to_async`.
    """
    from django.contrib.auth.models import AnonymousUser

    session = _session_of(scope)
    if session.session_key is None and session.is_empty():
        return AnonymousUser()
    return await run_in_thread(_load_user, session)


def _load_user(session: SessionBase) -> AbstractBaseUser | AnonymousUser:
    from django.contrib.auth.models import AnonymousUser

    load_session(session)
    try:
        return auth.get_user(_SessionOnly(session))  # type: ignore[arg-type]
    except ValidationError:  # the session is older than a change of the user model's type of primary key
        return AnonymousUser()


async def login(scope: Scope, user: AbstractBaseUser | None, backend: str | None = None) -> None:
    """Log a user in: the session gets a new key and the user, and ``scope["user"]`` is replaced.

    The receivers of Django's signal get an ``HttpRequest`` of the handshake, or of a consumer's request without its
    body: with headers, cookies, ``META``, the session and the user.

    Before the WebSocket is accepted or the response started, the session is saved with that message; later it is saved
    at the end of the connection. To save it at once: ``await sync_to_async(scope["session"].save)()``.

    Args:
        scope: the connection's scope, with a session.
        user: an authenticated user; None for the scope's.
        backend: the path of the authentication backend; needed if several are configured and the user names none.

    Raises:
        ConfigurationError: there is no session in the scope.
        ValueError: `backend` is needed, or there is no user to log in.

    Cancellation: the wait for a thread can be cancelled; a login that has begun is completed.
    """
    _session_of(scope)
    if user is None:
        user = scope.get("user")
    if user is None or getattr(user, "is_anonymous", False):
        raise ValueError("login() expects a user, as an argument or in the scope; there is none that is not anonymous")
    await run_in_thread(_login, scope, user, backend)
    scope["user"] = user


def _login(scope: Scope, user: AbstractBaseUser, backend: str | None) -> None:
    from .request import ConnectionRequest  # Django's models are there only after the start

    auth.login(ConnectionRequest(scope), user, backend)


def _logout(scope: Scope) -> None:
    from .request import ConnectionRequest

    user = scope.get("user")
    if user is None or not getattr(user, "is_authenticated", True):
        scope["session"].flush()  # without a signal, as in Channels
    else:
        auth.logout(ConnectionRequest(scope))


async def logout(scope: Scope) -> None:
    """Log the user out: the session's data is deleted, and ``scope["user"]`` becomes anonymous.

    Without a user in the scope only the session's data is deleted: no signal is sent, and the scope gets no user.

    The receivers of Django's signal get a request as those of :func:`login`.

    Args:
        scope: the connection's scope, with a session.

    Raises:
        ConfigurationError: there is no session in the scope.

    Cancellation: the wait for a thread can be cancelled; a logout that has begun is completed.
    """
    from django.contrib.auth.models import AnonymousUser

    _session_of(scope)
    await run_in_thread(_logout, scope)
    if "user" in scope:
        scope["user"] = AnonymousUser()


def _still_logged_in(scope: Scope) -> bool:
    """On a thread: whether the stored session is still valid, and of the same user as the scope's."""
    stored = type(scope["session"])(scope["session"].session_key)
    user = _load_user(stored)
    return user.is_authenticated and stored.get(auth.SESSION_KEY) == scope["session"].get(auth.SESSION_KEY)


class UserLazyObject(LazyObject):  # type: ignore[type-arg]  # it is generic in the stubs only
    """Stands in the scope for the user, between ``populate_scope`` and ``resolve_scope``."""

    def _setup(self) -> None:
        raise ConfigurationError("the scope's user is read before resolve_scope() of the middleware has set it")


class AuthMiddleware:
    """Puts the user into the scope, as ``user``; belongs inside a SessionMiddleware.

    Subclass it and override ``resolve_scope`` for users of your own, such as those of a token.

    The session and its user are loaded in one call on a thread; without a session cookie there is no such call. With
    the setting ``SESSION_RECHECK`` both are checked again while a WebSocket is open. The WebSocket is closed with 1008
    when the user is deleted, inactive or logged out elsewhere.

    Args:
        inner: the ASGI application.
    """

    def __init__(self, inner: ASGIApplication) -> None:
        self.inner = inner

    @property
    def loads_session(self) -> bool:
        """Tells SessionMiddleware to leave loading the session to this middleware; no subclass may read it before."""
        names = ("__call__", "populate_scope", "resolve_scope")
        return all(getattr(type(self), name) is getattr(AuthMiddleware, name) for name in names)

    def populate_scope(self, scope: Scope) -> None:
        """Put an object into the scope, as ``user``, that :meth:`resolve_scope` sets; leaves a user that is there.

        Raises:
            ConfigurationError: there is no session in the scope.
        """
        if "user" not in scope:
            _session_of(scope)
            scope["user"] = UserLazyObject()

    async def resolve_scope(self, scope: Scope) -> None:
        """Set the user: ``scope["user"] = user``, or, as in Channels, ``scope["user"]._wrapped = user``.

        Cancellation: as :func:`get_user`.
        """
        if type(scope["user"]) is UserLazyObject:
            scope["user"] = await get_user(scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the inner application. Cancellation: as :meth:`resolve_scope`, then the application's."""
        had_user = "user" in scope
        scope = dict(scope)
        self.populate_scope(scope)
        await self.resolve_scope(scope)
        if type(scope["user"]) is UserLazyObject:
            scope["user"] = _resolved(scope["user"])
        interval = None if had_user else _conf.get("SESSION_RECHECK")
        if interval and scope["type"] == "websocket":
            await Recheck(scope, receive, send, _still_logged_in, interval).run(self.inner)
        else:
            await self.inner(scope, receive, send)


def _resolved(user: Any) -> Any:
    if user._wrapped is empty:
        raise ConfigurationError(
            "resolve_scope() of the middleware must set the user: scope['user'] = user; it has set none"
        )
    return user._wrapped


def AuthMiddlewareStack(inner: ASGIApplication) -> CookieMiddleware:  # noqa: N802 - Channels' name
    """Put the cookies, the session and the user into the scope of an application."""
    return CookieMiddleware(SessionMiddleware(AuthMiddleware(inner)))
