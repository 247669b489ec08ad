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

#: URLs in URLs that are looked at; what is nested deeper, by whomever, is masked.
DEEPEST = 5

_SEPARATORS = re.compile("([&;])")
#: A word: letters of one case after an optional capital, or capitals alone.
_WORDS = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def mask_query(query: str, secrets: Collection[str], depth: int = 0) -> str:
    """A query string with ``***`` for the values of secrets; the rest is as it was."""
    return "".join(_mask_pair(part, secrets, depth) for part in _SEPARATORS.split(query))


def mask_url(url: str, secrets: Collection[str], depth: int = 0) -> str:
    """A URL with its query, and what is behind it, masked. `depth`: the URLs in which it is."""
    before, mark, query = url.partition("?")
    return f"{before}{mark}{mask_query(query, secrets, depth)}"


def _mask_pair(pair: str, secrets: Collection[str], depth: int) -> str:
    name, equals, value = pair.partition("=")
    if not value:
        return pair
    decoded = unquote_plus(value)
    # Also a URL in a value, such as ``next=/reset/?token=...``.
    is_masked = _is_secret(unquote_plus(name), secrets) or ("?" in decoded and depth >= DEEPEST)
    if is_masked or mask_url(decoded, secrets, depth + 1) != decoded:
        return f"{name}{equals}{MASK}"
    return pair


def _is_secret(name: str, secrets: Collection[str]) -> bool:
    return name.lower() in secrets or any(word.lower() in secrets for word in _WORDS.findall(name))
