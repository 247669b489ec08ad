"""The entry point of a Django project: ``application = get_asgi_application()`` for HTTP, on Trio."""

from __future__ import annotations

import logging

import django
from django.apps import apps

from . import _conf
from ._http.handler import DjangoHandler
from .log import enable_loggers
from .server.hardening import harden_hypercorn

__all__ = ["DjangoHandler", "get_asgi_application"]

logger = logging.getLogger("trio_channels.asgi")


def get_asgi_application() -> DjangoHandler:
    """Set up Django, and return the ASGI application that serves its views.

    Call it before you import consumers that import models.

    Raises:
        ConfigurationError: ``TRIO_CHANNELS`` has an unknown key or an invalid value.
    """
    django.setup(set_prefix=False)
    enable_loggers()
    _conf.limits()  # reads the settings, so that an invalid one fails here, and not in the first request
    if not apps.is_installed("trio_channels"):
        logger.warning(
            "trio_channels is not in INSTALLED_APPS: without it Django's async methods, such as aget(), fail, and "
            "queries that block the event loop raise no error. Add it before django.contrib.staticfiles"
        )
    harden_hypercorn()
    return DjangoHandler()
