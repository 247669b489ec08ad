"""``{% load trio_channels %}``: the address of a signed event stream."""

from __future__ import annotations

from typing import Any

from django import template
from django.urls import reverse

register = template.Library()


@register.simple_tag
def trio_stream(*names: str, url: str = "trio_stream", **options: Any) -> str:
    """The address of an event stream of groups and topics, signed: ``{% trio_stream "room:1" %}``.

    Args:
        names, options: the arguments of :func:`trio_channels.event_stream.sign_stream`.
        url: the name of the route to an EventStream with ``signed=True``, or its path.

    Raises:
        NoReverseMatch: there is no such route.
        ConfigurationError, InvalidNameError: as ``sign_stream``.
    """
    from ..event_stream import sign_stream  # here: Django loads this module with its first template

    path = url if "/" in url else reverse(url)
    return f"{path}?stream={sign_stream(*names, **options)}"
