"""Signed names of streams: a page hands them to its client, who can neither change them nor make others."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from django.core import signing

from ..exceptions import ConfigurationError
from .names import checked

_SALT = "trio_channels.event_stream"
#: The argument that is not given: None may be a mistake of a template.
ANYBODY: Any = object()


class SignedStream(NamedTuple):
    """The content of a signature that holds."""

    names: tuple[str, ...]
    since: str | None
    user: Any

    @property
    def is_bound(self) -> bool:
        """Whether only one user may use it."""
        return self.user is not ANYBODY

    def is_for(self, user: Any) -> bool:
        """Whether this user may use it."""
        return not self.is_bound or bool(self.user == _key_of(user))


def sign_stream(*names: str, user: Any = ANYBODY, max_age: float | None = None, since: str | None = None) -> str:
    """A signed text that lets its bearer read a stream of these groups and topics, from a view with ``signed = True``.

    Args:
        names: the groups and topics.
        user: only this user may use it. An anonymous user: only clients that are not logged in.
        max_age: the seconds for which it may be used, also to come back after an outage; None: for ever.
        since: the position from :func:`stream_position`, from which the client gets the events.

    Raises:
        ConfigurationError: there are no names or too many, or the user is not one that is saved, or anonymous.
        InvalidNameError: a name is not valid.
    """
    content: dict[str, Any] = {"names": checked(names)}
    if user is not ANYBODY:
        content["user"] = _key_of(user)
    if max_age is not None:
        content["until"] = time.time() + float(max_age)
    if since:
        content["since"] = since
    return signing.dumps(content, salt=_SALT)


def read_signature(signed: str) -> SignedStream | None:
    """The content of a signed text; None if it is forged or too old."""
    try:
        content: dict[str, Any] = signing.loads(signed, salt=_SALT)
    except signing.BadSignature:
        return None
    if content.get("until", float("inf")) <= time.time():
        return None
    return SignedStream(tuple(content["names"]), content.get("since"), content.get("user", ANYBODY))


def _key_of(user: Any) -> str | None:
    """The primary key of a user as a str; None for an anonymous one."""
    is_authenticated = getattr(user, "is_authenticated", None)
    key = getattr(user, "pk", None)
    if is_authenticated is False:
        return None
    if not is_authenticated or key is None:
        raise ConfigurationError(f"expected a user that is saved, or an anonymous one; got {type(user).__name__}")
    return str(key)
