"""Resolve the URL of a request, once."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.conf import settings
from django.http import HttpRequest
from django.urls import Resolver404, ResolverMatch, get_resolver
from django.utils import translation


class Resolved(NamedTuple):
    """A match, and everything that it depends on. Routes may be translated, so the language is a part of it."""

    match: ResolverMatch
    path: str
    urlconf: Any
    language: str | None

    def holds_for(self, request: HttpRequest) -> bool:
        """Whether resolving the URL of this request again gives the same match; middleware may have changed it."""
        return (
            request.path_info == self.path
            and getattr(request, "urlconf", None) is self.urlconf
            and translation.get_language() == self.language
        )


def resolve(path: str, urlconf: Any) -> Resolved:
    """Find the view of a path; below a language prefix in that language, which a middleware will activate.

    Raises:
        Resolver404: there is none.
    """
    try:
        return Resolved(get_resolver(urlconf).resolve(path), path, urlconf, translation.get_language())
    except Resolver404:
        language = translation.get_language_from_path(path) if settings.USE_I18N else None
        if not language:
            raise
        with translation.override(language):
            return Resolved(get_resolver(urlconf).resolve(path), path, urlconf, translation.get_language())
