"""A hint for the first site that is served without ``DEBUG``: its static files come from elsewhere, or not at all."""

from __future__ import annotations

import logging
from urllib.parse import urlparse

from django.apps import apps
from django.conf import settings

logger = logging.getLogger("trio_channels.asgi")

_has_warned = False


def warn_of_static_files(path: str) -> None:
    """Log, once, that a path without a view is that of a static file, which nobody serves."""
    global _has_warned
    if _has_warned or not apps.is_installed("django.contrib.staticfiles"):
        return
    url = urlparse(settings.STATIC_URL or "")
    # WhiteNoise's middleware has looked for the file already, and would have served it.
    if url.netloc or url.path in ("", "/") or not path.startswith(url.path) or "whitenoise" in str(settings.MIDDLEWARE):
        return
    _has_warned = True
    logger.warning(
        "answering 404 to %r: only runserver serves static files, and only with DEBUG or --insecure. Run "
        "'manage.py collectstatic' and have the proxy serve STATIC_ROOT, or add WhiteNoise's middleware (logged once)",
        path,
    )
