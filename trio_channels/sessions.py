"""Cookies and Django sessions in the scope.

A session is loaded and saved on a thread of the pool; without a session cookie there is nothing to load. A changed
session is saved before ``websocket.accept`` or ``http.response.start`` is sent, with its cookie in that message. If it
was changed after that, it is saved again at the end of the connection.
"""

from __future__ import annotations

import datetime
import logging
from importlib import import_module
from typing import Any

import trio
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.http import HttpResponse, parse_cookie

from ._asgi.protocol import ASGIApplication, Message, Receive, Scope, Send, describe
from ._threads.database import run_in_thread
from ._threads.pool import never_refused
from .exceptions import ConfigurationError

__all__ = ["CookieMiddleware", "SessionMiddleware", "SessionMiddlewareStack"]

logger = logging.getLogger("trio_channels.sessions")

#: Seconds for saving a session at the end of the connection.
SAVE_TIMEOUT = 5.0

_COOKIE_CARRIERS = frozenset({"websocket.accept", "http.response.start"})


class CookieMiddleware:
    """Puts the request's cookies into the scope, as the dict ``cookies``.

    All ``cookie`` headers are read: HTTP/2 clients may split them (RFC 9113, section 8.2.3).

    Args:
        inner: the ASGI application.
    """

    def __init__(self, inner: ASGIApplication) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the inner application. Cancellation: the application's."""
        if "cookies" not in scope:
            values = [value for name, value in scope.get("headers", ()) if name.lower() == b"cookie"]
            scope = dict(scope, cookies=parse_cookie(b"; ".join(values).decode("latin-1")))
        await self.inner(scope, receive, send)

    @classmethod
    def set_cookie(
        cls,
        message: Message,
        key: str,
        value: str = "",
        max_age: float | datetime.timedelta | None = None,
        expires: str | datetime.datetime | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: Any = "lax",
    ) -> None:
        """Add a Set-Cookie header to an ASGI message.

        Args:
            message: a ``websocket.accept`` or ``http.response.start``.
            key: the cookie's name.
            value: its value.
            max_age, expires, path, domain, secure, httponly, samesite: as for Django's ``HttpResponse.set_cookie``.
                ``samesite`` is ``lax`` by default, as in Channels; None or False leaves it out.
        """
        response = HttpResponse()
        response.set_cookie(
            key,
            value,
            max_age=max_age,  # type: ignore[arg-type]  # the stubs lack float
            expires=expires,
            path=path,
            domain=domain,
            secure=secure,
            httponly=httponly,
            samesite=samesite or None,
        )
        cls._add_cookies(message, response)

    @classmethod
    def delete_cookie(
        cls, message: Message, key: str, path: str = "/", domain: str | None = None, samesite: Any = None
    ) -> None:
        """Add a Set-Cookie header to an ASGI message that deletes the cookie `key` of that path and domain."""
        response = HttpResponse()
        response.delete_cookie(key, path, domain, samesite)
        cls._add_cookies(message, response)

    @staticmethod
    def _add_cookies(message: Message, response: HttpResponse) -> None:
        cookies = [(b"set-cookie", cookie.output(header="").strip().encode()) for cookie in response.cookies.values()]
        message["headers"] = [*message.get("headers", ()), *cookies]


class SessionMiddleware:
    """Puts the Django session into the scope, as ``session``; belongs inside a :class:`CookieMiddleware`.

    Args:
        inner: the ASGI application. If its attribute ``loads_session`` is true, as AuthMiddleware's is, the application
            loads the session itself, in the same call on a thread as the data that it needs.
    """

    def __init__(self, inner: ASGIApplication) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the inner application.

        Cancellation: the application's. A changed session is still saved, for at most :data:`SAVE_TIMEOUT` seconds.
        """
        if "session" in scope:
            await self.inner(scope, receive, send)
            return
        if "cookies" not in scope:
            raise ConfigurationError(
                "SessionMiddleware needs cookies in the scope, and there are none; put it inside a CookieMiddleware"
            )
        session: SessionBase = import_module(settings.SESSION_ENGINE).SessionStore(_session_key(scope))
        # With a user already in the scope, from a test or another middleware, AuthMiddleware loads nothing.
        left_to_inner = getattr(self.inner, "loads_session", False) and "user" not in scope
        if session.session_key is not None and not left_to_inner:
            await run_in_thread(load_session, session)
        keeper = _SessionKeeper(dict(scope, session=session), session, send)
        await keeper.run(self.inner, receive)


def SessionMiddlewareStack(inner: ASGIApplication) -> CookieMiddleware:  # noqa: N802 - Channels' name
    """Put the cookies and the session into the scope of an application."""
    return CookieMiddleware(SessionMiddleware(inner))


def load_session(session: SessionBase) -> None:
    """Load the session's data, on a thread. A key that the backend does not know gives an empty session."""
    session.keys()


class _SessionKeeper:
    """Saves one connection's session when it has changed."""

    def __init__(self, scope: Scope, session: SessionBase, send: Send) -> None:
        self._scope = scope
        self._session = session
        self._send = send
        self._failed = False
        self._key_of_client = session.session_key

    async def run(self, inner: ASGIApplication, receive: Receive) -> None:
        try:
            await inner(self._scope, receive, self.send)
        finally:
            # A flushed session is already deleted; saving it would make a new, empty one. As in Django, changes are
            # not saved with a response of status 500 and above.
            if self._session.modified and not self._session.is_empty() and not self._failed:
                await self._save_at_end()

    async def send(self, message: Message) -> None:
        """Send a message; a changed session is saved before, and its cookie added."""
        session = self._session
        if message["type"] == "http.response.start":
            self._failed = message["status"] >= 500
        if message["type"] in _COOKIE_CARRIERS and not self._failed:
            if session.is_empty():
                if settings.SESSION_COOKIE_NAME in self._scope["cookies"] and session.accessed and session.modified:
                    CookieMiddleware.delete_cookie(message, settings.SESSION_COOKIE_NAME, **_cookie_options())
            elif (session.modified or settings.SESSION_SAVE_EVERY_REQUEST) and await self._save():
                self._set_cookie(message)
        await self._send(message)

    @property
    def passes_data_to(self) -> Send:
        """The function that gets each ``websocket.send`` as it is."""
        return self._send

    def _set_cookie(self, message: Message) -> None:
        session = self._session
        self._key_of_client = session.session_key
        until_exit = session.get_expire_at_browser_close()
        CookieMiddleware.set_cookie(
            message,
            settings.SESSION_COOKIE_NAME,
            session.session_key or "",
            max_age=None if until_exit else session.get_expiry_age(),
            secure=bool(settings.SESSION_COOKIE_SECURE),
            httponly=bool(settings.SESSION_COOKIE_HTTPONLY),
            **_cookie_options(),
        )

    async def _save_at_end(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SAVE_TIMEOUT) as scope:
            before = never_refused.set(True)
            try:
                if await self._save() and self._session.session_key != self._key_of_client:
                    # A login changes the key. So does each change of a signed cookie, whose key is the data.
                    logger.warning(
                        "the session of %s got a new key too late for its cookie: the client still has the old one. "
                        "Log in, and change signed cookies, before accepting",
                        describe(self._scope),
                    )
            finally:
                never_refused.reset(before)
        if scope.cancelled_caught:
            logger.error(
                "the session of %s could not be saved within %g seconds; its changes are lost",
                describe(self._scope),
                SAVE_TIMEOUT,
            )

    async def _save(self) -> bool:
        self._session.modified = False
        try:
            await run_in_thread(self._session.save)
        except trio.Cancelled:
            self._session.modified = True  # saving has not begun; it is done at the end of the connection
            raise
        except UpdateError:
            logger.warning(
                "the session of %s was deleted while it was connected, as by a logout elsewhere; its changes are lost",
                describe(self._scope),
            )
            return False
        return True


def _cookie_options() -> dict[str, Any]:
    """The options that the cookie's deletion needs too."""
    names = ("path", "domain", "samesite")
    return {name: getattr(settings, f"SESSION_COOKIE_{name.upper()}") for name in names}


def _session_key(scope: Scope) -> str | None:
    """The key in the session cookie; None for a key with characters that no backend uses and some databases refuse."""
    key: str | None = scope["cookies"].get(settings.SESSION_COOKIE_NAME)
    return key if key and key.isascii() and key.isprintable() else None
