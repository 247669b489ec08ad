"""Secrets in query strings, which log lines must not hold.

A parameter is a secret if one of the words in its name is in the list: ``accessToken``, ``auth-token`` and
``X-Amz-Signature`` have the words ``token`` and ``signature``, and ``monkey`` has no ``key``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import unquote_plus

#: The words of names such as ``access_token``, ``sessionid``, ``X-Amz-Signature``, ``api_key``.
SECRETS = (
    *("apikey", "assertion", "auth", "authorization", "code", "credential", "credentials", "csrfmiddlewaretoken"),
    *("jwt", "key", "otp", "passphrase", "passwd", "password", "pin", "pwd", "secret", "session", "sessionid", "sid"),
    *("sig", "signature", "stream", "ticket", "token"),  # {% trio_stream %} makes the parameter "stream"
)

MASK = "***"

_SEPARATORS = re.compile("([&;])")
#: A word: letters of one case after an optional capital, or capitals alone.
_WORDS = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def mask_query(query: str, secrets: Collection[str]) -> str:
    """A query string with ``***`` for the values of secrets; the rest is as it was."""
    return "".join(_mask_pair(part, secrets) for part in _SEPARATORS.split(query))


def mask_url(url: str, secrets: Collection[str]) -> str:
    """A URL with its query, and what is behind it, masked."""
    before, mark, query = url.partition("?")
    return f"{before}{mark}{mask_query(query, secrets)}"


def _mask_pair(pair: str, secrets: Collection[str]) -> str:
    name, equals, value = pair.partition("=")
    if not value:
        return pair
    decoded = unquote_plus(value)
    # Also a URL in a value, such as ``next=/reset/?token=...``.
    if _is_secret(unquote_plus(name), secrets) or mask_url(decoded, secrets) != decoded:
        return f"{name}{equals}{MASK}"
    return pair


def _is_secret(name: str, secrets: Collection[str]) -> bool:
    return name.lower() in secrets or any(word.lower() in secrets for word in _WORDS.findall(name))
