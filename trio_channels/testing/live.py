"""Live servers for tests: the project's application, served by hypercorn on Trio in a thread of the test's process.

They are for tests that need a real server, such as tests with a browser. With Django's test runner::

    class ChatTests(ChannelsLiveServerTestCase):
        def test_page(self):
            self.browser.get(self.live_server_url + "/chat/")

With pytest-django, the fixture ``trio_live_server``, which has ``url`` and ``ws_url``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import LiveServerTestCase, modify_settings
from django.test.testcases import LiveServerThread
from django.utils.functional import classproperty

from .._asgi.protocol import ASGIApplication
from .._concurrency.exception_groups import bare
from ..exceptions import ConfigurationError
from ..routing import get_default_application
from ..server.development import DevelopmentServer, with_static_files
from ._connections import shared_connections

__all__ = ["ChannelsLiveServerTestCase", "LiveServer", "live_server"]

#: Seconds until a server must serve, with its channel layers open.
START_TIMEOUT = 60.0


class ServerThread(LiveServerThread):
    """The thread of one live server: Django's class, with another server."""

    httpd: DevelopmentServer  # type: ignore[assignment]

    def __init__(
        self,
        host: str,
        static_handler: Callable[[ASGIApplication], ASGIApplication],
        connections_override: Mapping[str, BaseDatabaseWrapper] | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(host, static_handler, connections_override, port)  # type: ignore[arg-type]
        self.daemon = True

    def run(self) -> None:
        """Serve until :meth:`terminate`; set ``is_ready`` when it serves or has failed."""
        shared = self.connections_override
        try:
            application: Any = get_default_application()
            self.httpd = DevelopmentServer(
                (self.host, self.port),
                allow_reuse_address=False,
                around=(lambda: shared_connections(shared)) if shared else None,
            )
            self.port = self.httpd.server_port
            self.httpd.set_app(self.static_handler(application))  # type: ignore[arg-type]
            self.httpd.serve_forever(self.is_ready.set)
        except Exception as error:
            self.error = bare(error)  # type: ignore[assignment]
        finally:
            self.is_ready.set()


class ChannelsLiveServerTestCase(LiveServerTestCase):
    """Django's ``LiveServerTestCase``, serving ``ASGI_APPLICATION``: pages, WebSockets, and static files.

    Attributes:
        host, port: the server's address; a free port by default.
        serve_static: whether the server serves static files, if ``django.contrib.staticfiles`` is installed.

    As with Django's class, the tests' transactions are committed, and the tables are emptied after each test. The test
    and the server's thread share a database in memory, one call at a time.
    """

    serve_static: ClassVar[bool] = True
    server_thread_class = ServerThread

    @classproperty
    def live_server_ws_url(cls) -> str:  # noqa: N805 - a classproperty
        """The server's address for WebSockets."""
        return f"ws://{cls.host}:{cls.server_thread.port}"

    @classmethod
    def _create_server_thread(cls, connections_override: Any) -> Any:
        wrap = with_static_files if cls.serve_static else lambda application: application
        return cls.server_thread_class(cls.host, wrap, connections_override=connections_override, port=cls.port)


class LiveServer:
    """The value of the fixture ``trio_live_server``: the server's addresses.

    Attributes:
        url: the address of pages, ``http://localhost:<port>``.
        ws_url: the address of WebSockets, ``ws://localhost:<port>``.
    """

    def __init__(self, host: str, port: int) -> None:
        self.url = f"http://{host}:{port}"
        self.ws_url = f"ws://{host}:{port}"

    def __repr__(self) -> str:
        return f"<LiveServer at {self.url}>"

    def __str__(self) -> str:
        return self.url

    def __add__(self, path: str) -> str:
        return self.url + path


@contextmanager
def live_server(host: str = "localhost", port: int = 0) -> Iterator[LiveServer]:
    """Serve ``ASGI_APPLICATION`` during the block.

    Raises:
        ConfigurationError: there is no ``ASGI_APPLICATION``, it does not start, or its lifespan has failed meanwhile.
    """
    every: Sequence[Any] = connections.all()
    override = {each.alias: each for each in every if each.vendor == "sqlite" and each.is_in_memory_db()}
    with modify_settings(ALLOWED_HOSTS={"append": host}):
        thread = ServerThread(host, with_static_files, override, port)
        thread.start()
        try:
            if not thread.is_ready.wait(START_TIMEOUT):
                raise ConfigurationError(f"the application did not start within {START_TIMEOUT:g} seconds")
            if thread.error is not None:
                raise ConfigurationError(f"the application did not start: {thread.error}") from thread.error
            yield LiveServer(host, thread.port)
        finally:
            thread.terminate()
        if thread.error is not None:
            raise ConfigurationError(f"the application failed while it was served: {thread.error}") from thread.error
