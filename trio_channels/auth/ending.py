"""The setting ``CLOSE_ON_LOGOUT``: the end of a login closes the connections that were opened with it.

The rules:

1. A logout closes the connections of its session, not those of the user's other sessions: Django ends one session, too.
   So does a login that replaces a session.
2. A new password, a deactivation and a deletion close all connections of the user: Django ends all sessions.
3. It is done when the session has been deleted and the transaction has been committed. A client that comes back at once
   must not be let in.
4. A failure is logged, and never changes the logout.

Django sends signals for what is saved by ``save()`` and deleted by ``delete()``. It sends none for ``update()``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db import transaction
from django.db.models.signals import post_delete, post_save

from .. import _conf
from .._asgi.close_codes import POLICY_VIOLATION
from ..closing import close_session, close_user
from ..sync import async_to_sync
from .recheck import REASON

logger = logging.getLogger("trio_channels.auth")

_ID = "trio_channels.auth.ending"


def connect() -> None:
    """Connect the receivers; they do nothing without the setting."""
    user_logged_out.connect(_logged_out, dispatch_uid=_ID)
    user_logged_in.connect(_logged_in, dispatch_uid=_ID)
    post_save.connect(_saved, dispatch_uid=_ID)
    post_delete.connect(_deleted, dispatch_uid=_ID)


def _is_on() -> bool:
    return bool(_conf.get("CLOSE_ON_LOGOUT"))


def _logged_out(request: Any, **_kwargs: object) -> None:
    session = getattr(request, "session", None)
    if session is None or session.session_key is None or not _is_on():
        return
    # Django sends the signal first, and then deletes the session, by one of these.
    then = partial(_close_session, session.session_key)
    session.flush = _followed_by(session, "flush", then)
    session.aflush = _async_followed_by(session, "aflush", then)


def _followed_by(session: Any, name: str, then: Callable[[], None]) -> Callable[[], None]:
    inner = getattr(session, name)

    @wraps(inner)
    def flush() -> None:
        _forget(session)
        inner()
        then()

    return flush


def _async_followed_by(session: Any, name: str, then: Callable[[], None]) -> Any:
    inner = getattr(session, name)

    @wraps(inner)
    async def flush() -> None:
        _forget(session)
        await inner()
        await sync_to_async(then)()

    return flush


def _forget(session: Any) -> None:
    for name in ("flush", "aflush"):
        vars(session).pop(name, None)


def _logged_in(request: Any, **_kwargs: object) -> None:
    """Close the connections of the session that the login has replaced, with another key."""
    session = getattr(request, "session", None)
    before = getattr(request, "COOKIES", {}).get(settings.SESSION_COOKIE_NAME)
    if session is not None and before and before != session.session_key and _is_on():
        _close_session(before)


def _saved(sender: type, instance: Any, created: bool, raw: bool, using: str, **_kwargs: object) -> None:
    if created or raw or not issubclass(sender, get_user_model()) or not _is_on():
        return
    # AbstractBaseUser keeps a new password here until it has been saved.
    if getattr(instance, "_password", None) is not None or not instance.is_active:
        _close_user(instance.pk, using)


def _deleted(sender: type, instance: Any, using: str, **_kwargs: object) -> None:
    if issubclass(sender, get_user_model()) and _is_on():
        _close_user(instance.pk, using)


def _close_session(key: str) -> None:
    transaction.on_commit(partial(_tell, partial(close_session, key, POLICY_VIOLATION, REASON)))


def _close_user(key: Any, using: str) -> None:
    transaction.on_commit(partial(_tell, partial(close_user, key, POLICY_VIOLATION, REASON)), using=using)


def _tell(order: Any) -> None:
    try:
        async_to_sync(order)()
    except Exception as error:
        logger.error("connections of an ended login may stay open: the processes could not be told: %r", error)
