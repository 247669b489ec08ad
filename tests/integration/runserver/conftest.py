"""A Django project of four files, in a folder of its own, and processes in which its ``manage.py`` runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
#: Seconds; only a test that fails waits as long.
PATIENCE = 60

SETTINGS = """
SECRET_KEY = "of no worth"
DEBUG = True
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["trio_channels", "django.contrib.staticfiles"]
ROOT_URLCONF = "site_urls"
ASGI_APPLICATION = "site_asgi.application"
DATABASES = {}
STATIC_URL = "static/"
STATICFILES_DIRS = ["static"]
"""
URLS = """
from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("hello/", lambda request: HttpResponse("hello"))]
"""
ASGI = """
from trio_channels.asgi import get_asgi_application
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter
class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)
application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": Echo.as_asgi()})
"""


class Project:
    """The project, and its ``manage.py runserver`` as a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "static").mkdir()
        (folder / "static" / "site.css").write_text("body {}")
        for name, text in ("site_settings", SETTINGS), ("site_urls", URLS), ("site_asgi", ASGI):
            (folder / f"{name}.py").write_text(text)
        self.output = ""
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def write(self, name: str, text: str) -> None:
        """Write one of its modules anew."""
        (self.folder / f"{name}.py").write_text(text)

    @contextmanager
    def changing(self, name: str, text: str) -> Iterator[None]:
        """Write a module anew, and touch it again and again: the reloader misses a change before its first look."""
        done = threading.Event()

        def write() -> None:
            self.write(name, text)
            while not done.wait(0.3):
                os.utime(self.folder / f"{name}.py")

        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command in a process group of its own, as a terminal does."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "django", "runserver", *arguments],
            cwd=self.folder,
            env=os.environ
            | {
                "DJANGO_SETTINGS_MODULE": "site_settings",
                "PYTHONPATH": os.pathsep.join([".", str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "PYTHONUNBUFFERED": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self._process

    def wait_for(self, pattern: str) -> str:
        """Read its output until a line matches; returns the match's group, or all of the match."""
        assert self._process is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(PATIENCE, self.signal, [signal.SIGKILL])
        watchdog.start()
        try:
            while not (found := re.search(pattern, line := self._process.stdout.readline())):
                self.output += line
                assert line, self.output
            self.output += line
            return found[found.re.groups and 1]
        finally:
            watchdog.cancel()
            watchdog.join()

    def serve(self, *arguments: str) -> None:
        """Start, and return when it listens, on a port of its own choice."""
        self.start(*arguments)
        self.wait_until_it_listens()

    def wait_until_it_listens(self) -> None:
        self.port = int(self.wait_for(r"Starting .*development server.* at http://.*:(\d+)/"))

    def get(self, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
        """Status and body of a page."""
        try:
            with urllib.request.urlopen(f"http://{host}:{self.port}{path}", timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes, as Ctrl-C in a terminal does."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def stop(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; returns the exit code."""
        assert self._process is not None
        self.output += self._process.communicate(timeout=PATIENCE)[0]
        code, self._process = self._process.returncode, None
        return code

    def close(self) -> None:
        """Leave no process behind."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self.wait()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project of a test's own."""
    project = Project(tmp_path)
    yield project
    project.close()
