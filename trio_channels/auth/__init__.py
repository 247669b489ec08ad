"""Django's users in the scope, and logging in and out over a connection.

Everything that Django knows about sessions and users is left to ``django.contrib.auth``: the session's hash is
verified, ``SECRET_KEY_FALLBACKS`` are honoured, keys are cycled on login, signals are sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import auth
from django.core.exceptions import ValidationError

from .. import _conf
from .._asgi.protocol import ASGIApplication, Receive, Scope, Send
from .._threads.database import run_in_thread
from ..exceptions import ConfigurationError
from ..sessions import CookieMiddleware, SessionMiddleware, load_session
from .recheck import Recheck

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

__all__ = ["AuthMiddleware", "AuthMiddlewareStack", "get_user", "login", "logout"]


class _Request:
    """What ``django.contrib.auth`` needs of a request, made of a scope."""

    def __init__(self, scope: Scope) -> None:
        if "session" not in scope:
            raise ConfigurationError("there is no session in the scope; wrap the application in AuthMiddlewareStack")
        self.scope = scope
        self.session = scope["session"]
        self.user = scope.get("user")
        client = scope.get("client")
        self.META: dict[str, Any] = {"REMOTE_ADDR": client[0] if client else ""}


async def get_user(scope: Scope) -> AbstractBaseUser | AnonymousUser:
    """The user of the scope's session, or ``AnonymousUser``; never an error because of what is in the session.

    Raises:
        ConfigurationError: there is no session in the scope.

    Cancellation: as of :func:`trio_channels.sync.sync_to_async`. No thread is asked where there is no session cookie.
    """
    from django.contrib.auth.models import AnonymousUser

    request = _Request(scope)
    if request.session.session_key is None and request.session.is_empty():
        return AnonymousUser()
    return await run_in_thread(_load_user, request)


def _load_user(request: _Request) -> AbstractBaseUser | AnonymousUser:
    from django.contrib.auth.models import AnonymousUser

    load_session(request.session)
    try:
        user: AbstractBaseUser | AnonymousUser = auth.get_user(request)  # type: ignore[arg-type]
    except ValidationError:  # the session is from before the user model got another kind of primary key
        return AnonymousUser()
    return user


async def login(scope: Scope, user: AbstractBaseUser, backend: str | None = None) -> None:
    """Log a user in: the session gets a new key and holds the user from now on, and ``scope["user"]`` is replaced.

    The session is saved when it next can be: with the acceptance if that is still to come, else at the end of the
    connection. To have it at once: ``await sync_to_async(scope["session"].save)()``.

    Args:
        scope: the connection's, with a session.
        user: an authenticated user.
        backend: the path of the authentication backend; needed if several are configured and the user names none.

    Raises:
        ConfigurationError: there is no session in the scope.
        ValueError: `backend` is needed.

    Cancellation: waiting for a thread can be cancelled; once it has begun, the user is logged in.
    """
    await run_in_thread(auth.login, _Request(scope), user, backend)  # type: ignore[arg-type]
    scope["user"] = user


async def logout(scope: Scope) -> None:
    """Log the user out: the session's data is deleted, and ``scope["user"]`` becomes anonymous.

    Args:
        scope: the connection's, with a session.

    Raises:
        ConfigurationError: there is no session in the scope.

    Cancellation: waiting for a thread can be cancelled; once it has begun, the user is logged out.
    """
    from django.contrib.auth.models import AnonymousUser

    await run_in_thread(auth.logout, _Request(scope))  # type: ignore[arg-type]
    scope["user"] = AnonymousUser()


def _may_stay(scope: Scope) -> bool:
    """In a worker thread: whether what is stored now of the scope's session still says the same user."""
    stored = type(scope["session"])(scope["session"].session_key)
    user = _load_user(_Request({**scope, "session": stored}))
    return user.is_authenticated and stored.get(auth.SESSION_KEY) == scope["session"].get(auth.SESSION_KEY)


class AuthMiddleware:
    """Puts the user into the scope, as ``user``; belongs inside a SessionMiddleware.

    The session and its user are loaded in one call to a worker thread, and in none if there is no session cookie. With
    the setting ``SESSION_RECHECK`` they are asked for again while a WebSocket is open, and it is closed with 1008 when
    the user is gone, inactive or logged out elsewhere.

    Args:
        inner: the ASGI application.
    """

    #: Tells SessionMiddleware not to load the session itself.
    loads_session = True

    def __init__(self, inner: ASGIApplication) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the inner application.

        Raises:
            ConfigurationError: there is no session in the scope.
        """
        if "user" in scope:
            await self.inner(scope, receive, send)
            return
        scope = dict(scope, user=await get_user(scope))
        interval = _conf.get("SESSION_RECHECK")
        if interval and scope["type"] == "websocket":
            await Recheck(scope, receive, send, _may_stay, interval).run(self.inner)
        else:
            await self.inner(scope, receive, send)


def AuthMiddlewareStack(inner: ASGIApplication) -> CookieMiddleware:  # noqa: N802 - Channels' name
    """Cookies, the session and the user in the scope."""
    return CookieMiddleware(SessionMiddleware(AuthMiddleware(inner)))
