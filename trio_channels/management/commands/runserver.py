"""``manage.py runserver``, on Trio.

Django's own command, with another server: checks, autoreload, addresses and messages are Django's. The app
``trio_channels`` must stand before ``django.contrib.staticfiles`` in ``INSTALLED_APPS``, whose command would go before.
"""

from __future__ import annotations

from traceback import extract_tb
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.management.commands.runserver import Command as StaticFilesCommand
from django.core.management import CommandError, CommandParser
from django.core.management.commands.runserver import Command as WSGICommand
from django.core.servers.basehttp import WSGIServer

from ...exceptions import ConfigurationError
from ...routing import get_default_application
from ...server.development import DevelopmentServer, with_static_files


class Command(StaticFilesCommand):
    """Serves ``ASGI_APPLICATION`` with hypercorn on Trio; with ``--noasgi``, as Django's own command does."""

    addr: str  # this and the next are Django's
    _raw_ipv6: bool

    help = "Starts a development server on Trio, for HTTP and WebSockets."

    def add_arguments(self, parser: CommandParser) -> None:
        """Django's, those of staticfiles, and ``--noasgi``."""
        super().add_arguments(parser)
        parser.add_argument(
            "--noasgi",
            action="store_false",
            dest="use_asgi",
            help="Serves WSGI_APPLICATION with Django's own server, without WebSockets.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Find out what to serve, and serve it.

        Raises:
            CommandError: there is no ``ASGI_APPLICATION``; or what Django's command raises.
        """
        self.server_cls: Any = DevelopmentServer if options["use_asgi"] else WSGIServer
        if options["use_asgi"] and not getattr(settings, "ASGI_APPLICATION", None):
            raise CommandError(
                "The setting ASGI_APPLICATION is missing: the path of what is to be served, such as "
                "'mysite.asgi.application'. With --noasgi, Django's own server serves WSGI_APPLICATION."
            )
        super().handle(*args, **options)

    def on_bind(self, server_port: int) -> None:
        """Say where it serves, and what: Django 6.1 would say that it is a WSGI server."""
        if self.server_cls is WSGIServer:
            super().on_bind(server_port)
            return
        host = f"[{self.addr}]" if self._raw_ipv6 else "0.0.0.0" if self.addr == "0" else self.addr
        self.stdout.write(
            f"Django version {self.get_version()}, using settings {settings.SETTINGS_MODULE!r}\n"
            f"Starting ASGI development server on Trio at http://{host}:{server_port}/\n"
            "Quit the server with CONTROL-C. It is for development, and not for production."
        )
        self.stdout.flush()

    def get_handler(self, *args: Any, **options: Any) -> Any:
        """The application, behind its static files unless these are not wanted."""
        wanted = options["use_static_handler"] and (settings.DEBUG or options["insecure_serving"])
        if not options["use_asgi"]:
            if wanted and apps.is_installed("django.contrib.staticfiles"):
                return super().get_handler(*args, **options)
            return WSGICommand.get_handler(self, *args, **options)
        try:
            application = get_default_application()
        except ConfigurationError as error:
            raise _watched(CommandError(str(error)), error.__cause__) from error
        return with_static_files(application) if wanted else application


def _watched(error: CommandError, cause: BaseException | None) -> CommandError:
    """Have the autoreloader watch the file whose import has failed: it watches what an error has as its filename."""
    if cause is not None:
        error.filename = extract_tb(cause.__traceback__)[-1].filename  # type: ignore[attr-defined]
    return error
