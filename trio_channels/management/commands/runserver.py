"""``manage.py runserver``, on Trio.

This is Django's command with another server: checks, autoreload, addresses and messages are Django's. In
``INSTALLED_APPS`` the app ``trio_channels`` must stand before ``django.contrib.staticfiles``, which also has a
``runserver``: Django takes the first.
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
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError

from ..._concurrency.exception_groups import bare
from ...exceptions import ConfigurationError
from ...routing import get_default_application
from ...server.development import DevelopmentServer, with_static_files
from ...server.error_log import add_handlers
from .._tracebacks import short_traceback, shorten_tracebacks


class Command(StaticFilesCommand):
    """Serves ``ASGI_APPLICATION`` with hypercorn on Trio; with ``--noasgi``, runs Django's own command."""

    addr: str  # Django sets this attribute and the next
    _raw_ipv6: bool

    help = "Starts a development server on Trio, for HTTP and WebSockets."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add ``--noasgi`` to the arguments of Django and of staticfiles."""
        super().add_arguments(parser)
        parser.add_argument(
            "--noasgi",
            action="store_false",
            dest="use_asgi",
            help="Serves WSGI_APPLICATION with Django's own server, without WebSockets.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until Ctrl-C."""
        self.server_cls: Any = DevelopmentServer if options["use_asgi"] else WSGIServer
        if options["use_asgi"] and not getattr(settings, "ASGI_APPLICATION", None):
            raise CommandError(
                "The setting ASGI_APPLICATION is missing. Set it to the path of the ASGI application, such as "
                "'mysite.asgi.application', or use --noasgi: then Django's own server serves WSGI_APPLICATION."
            )
        super().handle(*args, **options)

    def inner_run(self, *args: Any, **options: Any) -> None:
        """Serve, in the process that the autoreloader starts again and again."""
        if options["use_asgi"]:
            add_handlers(None, "INFO", hypercorns_level="WARNING")  # Django prints the address
            if not options["traceback"]:
                shorten_tracebacks()
        try:
            super().inner_run(*args, **options)
        except Exception as error:
            failure = bare(error)
            if isinstance(failure, LifespanFailureError | LifespanTimeoutError):
                raise CommandError(str(failure)) from error
            raise

    def on_bind(self, server_port: int) -> None:
        """Print the address. Django 6.1 would print that this is a WSGI server."""
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
        """The application, behind the static files if they are to be served."""
        with_files = options["use_static_handler"] and (settings.DEBUG or options["insecure_serving"])
        if not options["use_asgi"]:
            if with_files and apps.is_installed("django.contrib.staticfiles"):
                return super().get_handler(*args, **options)
            return WSGICommand.get_handler(self, *args, **options)
        try:
            application = get_default_application()
        except ConfigurationError as error:
            if error.__cause__ is not None and not options["traceback"]:
                self.stderr.write(short_traceback(error.__cause__), lambda text: text)
            raise _watched(CommandError(str(error)), error.__cause__) from error
        return with_static_files(application) if with_files else application


def _watched(error: CommandError, cause: BaseException | None) -> CommandError:
    """Make the autoreloader watch the file whose import failed: it watches an error's attribute ``filename``."""
    if cause is not None:
        error.filename = extract_tb(cause.__traceback__)[-1].filename  # type: ignore[attr-defined]
    return error
