"""The entry point of a Django project: ``application = get_asgi_application()`` for HTTP, on Trio."""

from __future__ import annotations

import logging

import django
from django.apps import apps

from . import _conf
from ._http.handler import DjangoHandler
from .server.hardening import harden_hypercorn

__all__ = ["get_asgi_application"]

logger = logging.getLogger("trio_channels.asgi")


def get_asgi_application() -> DjangoHandler:
    """Set Django up, and return the ASGI application that serves its views.

    Call it before importing consumers that import models.

    Raises:
        ConfigurationError: ``TRIO_CHANNELS`` is wrong.
    """
    django.setup(set_prefix=False)
    _conf.limits()  # reads the setting: a wrong one ends the start, not the first request
    if not apps.is_installed("trio_channels"):
        logger.warning(
            "trio_channels is not in INSTALLED_APPS: Django's async methods, such as aget(), fail without it, and a "
            "query that blocks the loop is not refused. Add it, before django.contrib.staticfiles"
        )
    harden_hypercorn()
    return DjangoHandler()
