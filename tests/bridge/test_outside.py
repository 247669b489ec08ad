"""asgiref's ``async_to_sync`` outside a Trio run: functions that run on Trio, and functions that stay on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import subprocess
import sys
import threading
import unittest
from pathlib import Path
from typing import Any

import pytest
import sniffio
import trio
from asgiref.sync import async_to_sync
from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory, SimpleTestCase, override_settings
from django.urls import path

from trio_channels._http.handler import DjangoHandler
from trio_channels.bridge.patches import explain_to_django
from trio_channels.exceptions import BridgeError, ConfigurationError
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.testing import ScriptedConnection

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


# -- Django's tests ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["django", "pytest"])
def test_djangos_test_cases_run_on_trio(runner: str, tmp_path: Path) -> None:
    module = str(HERE / "django_tests.py")
    pytest_ = [
        "-m",
        "pytest",
        "-q",
        "-c",
        os.devnull,
        "-p",
        "no:cacheprovider",
        "-o",
        "python_files=*.py",
        "-k",
        "not Live",
    ]
    command = [sys.executable, *([module] if runner == "django" else [*pytest_, module])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "skipped" not in ended.stdout + ended.stderr


# -- the test clients -------------------------------------------------------------------------------------------------


async def library() -> str:
    return sniffio.current_async_library()


async def of_trio(request: HttpRequest) -> HttpResponse:
    await trio.lowlevel.checkpoint()
    return HttpResponse(await library())


async def of_asyncio(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse(await library())


def only_async(get_response: Any) -> Any:
    async def middleware(request: HttpRequest) -> HttpResponse:
        await trio.lowlevel.checkpoint()
        response: HttpResponse = await get_response(request)
        response["X-Library"] = await library()
        return response

    return middleware


only_async.async_capable = True  # type: ignore[attr-defined]
only_async.sync_capable = False  # type: ignore[attr-defined]

urlpatterns = [path("trio/", of_trio), path("asyncio/", of_asyncio)]

pytestmark = pytest.mark.usefixtures("urls", "sqlite_database")


@pytest.fixture
def urls() -> Any:
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[]):
        yield


def test_client_runs_an_async_view_on_trio() -> None:
    assert Client().get("/trio/").content == b"trio"


def test_client_runs_async_middleware_on_trio() -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.only_async"]):
        answer = Client().get("/trio/")
    assert (answer.content, answer["X-Library"]) == (b"trio", "trio")


def test_clients_view_for_asyncio_has_a_note() -> None:
    with pytest.raises(TypeError) as failed:
        Client().get("/asyncio/")
    assert "asyncio.sleep does not work in a Trio task: use trio.sleep(seconds)" in failed.value.__notes__


def test_asynchronous_client_of_asyncio_has_a_note() -> None:
    async def get(target: str) -> bytes:
        return bytes((await AsyncClient().get(target)).content)

    assert asyncio.run(get("/asyncio/")) == b"asyncio"
    with pytest.raises(RuntimeError) as failed:
        asyncio.run(get("/trio/"))
    assert failed.value.__notes__[0].startswith("Trio code was called where no Trio run is")


async def send_to_group() -> None:
    await Layer().group_send("room", {"type": "said"})


@pytest.mark.parametrize("call", [trio.lowlevel.checkpoint, functools.partial(trio.sleep, 1), send_to_group])
def test_trio_run_by_asyncio_has_a_note(call: Any) -> None:
    async def main() -> None:
        await call()

    with pytest.raises(RuntimeError) as failed:
        asyncio.run(main())
    assert failed.value.__notes__[0].startswith("Trio code was called where no Trio run is")


def test_error_of_asyncio_itself_has_no_note() -> None:
    async def main() -> None:
        raise RuntimeError("no running event loop")

    with pytest.raises(RuntimeError) as failed:
        asyncio.run(main())
    assert not hasattr(failed.value, "__notes__")


def test_isolated_test_case_has_a_note() -> None:
    class Test(unittest.IsolatedAsyncioTestCase):
        async def test_trio(self) -> None:
            await trio.lowlevel.checkpoint()

    result = unittest.TestResult()
    Test("test_trio").run(result)
    [(_, shown)] = result.errors
    assert "Trio code was called where no Trio run is" in shown


def test_test_case_that_fails_has_a_note() -> None:
    class Test(SimpleTestCase):
        async def test_sleep(self) -> None:
            await asyncio.sleep(1)

    with pytest.raises(RuntimeError) as failed:
        async_to_sync(Test("test_sleep").test_sleep)()
    assert failed.value.__notes__ == ["asyncio.sleep does not work in a Trio task: use trio.sleep(seconds)"]


def test_signal_without_an_exception_is_no_error() -> None:
    assert (explain_to_django, None) in got_request_exception.send(sender=None)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="From Python 3.14 on, asyncio itself makes no loop.")
@pytest.mark.filterwarnings("ignore:There is no current event loop:DeprecationWarning")
def test_loop_outside_of_trio_is_made_as_ever() -> None:
    loops = []

    def make() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        loops.append(asyncio.get_event_loop_policy().get_event_loop())

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    with contextlib.closing(loops[0]) as loop:
        assert not loop.is_running()


def test_request_that_is_no_test_clients_stays_on_asyncio() -> None:
    assert async_to_sync(of_asyncio)(RequestFactory().get("/")).content == b"asyncio"


# -- other functions --------------------------------------------------------------------------------------------------


class Layer(InMemoryChannelLayer):
    async def where(self) -> tuple[str, str]:
        return sniffio.current_async_library(), threading.current_thread().name


@pytest.mark.parametrize("wrap", [lambda method: method, functools.partial], ids=["method", "partial"])
def test_layers_method_runs_in_the_background_run(wrap: Any) -> None:
    assert async_to_sync(wrap(Layer().where))() == ("trio", "trio-channels background")


def test_layers_method_does_not_block_an_asyncio_loop() -> None:
    async def main() -> None:
        async_to_sync(Layer().where)()

    with pytest.raises(RuntimeError, match="cannot use AsyncToSync in the same thread as an async event loop"):
        asyncio.run(main())


def test_loop_for_a_layer_that_is_asked_for_is_made() -> None:
    assert async_to_sync(Layer().where, force_new_loop=True)()[0] == "asyncio"


def test_other_function_stays_on_asyncio() -> None:
    assert async_to_sync(library)() == "asyncio"


def test_other_function_that_needs_trio_has_a_note() -> None:
    async def main() -> None:
        await Layer().group_send("room", {"type": "said"})

    with pytest.raises(RuntimeError) as failed:
        async_to_sync(main)()
    assert "trio_channels.sync.async_to_sync" in failed.value.__notes__[0]


async def test_call_on_the_trio_thread_is_refused() -> None:
    with pytest.raises(BridgeError, match="on a thread that runs trio"):
        async_to_sync(Layer().where)()


# -- our applications on a server for asyncio -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "make"),
    [("http", DjangoHandler), ("websocket", AsyncWebsocketConsumer.as_asgi)],
    ids=["django", "consumer"],
)
def test_server_for_asyncio_is_told_what_to_use(kind: str, make: Any) -> None:
    connection = ScriptedConnection({"type": kind, "path": "/", "method": "GET", "headers": []})
    with pytest.raises(ConfigurationError, match="needs a server that runs on Trio"):
        asyncio.run(make()(connection.scope, print, print))
