"""A Django site that asyncio serves, in a process that also runs Trio.

Its sync and async views send messages to a group, and answer with the kind of their event loop. The process prints
the kinds of all event loops that were started.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import django
from asgiref.sync import async_to_sync as asgirefs_async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from tests.integration.outside.loops import counted_loops
from trio_channels.layers import get_channel_layer
from trio_channels.sync import async_to_sync

VIEWS = 10


def say(text: str, kind: str = "said") -> None:
    layer = get_channel_layer()
    assert layer is not None
    async_to_sync(layer.group_send)("room", {"type": kind, "text": text})


async def name_of_loop() -> str:
    await asyncio.sleep(0)
    return type(asyncio.get_running_loop()).__module__


def synchronous(request: HttpRequest, number: int) -> HttpResponse:
    say(f"sync {number}")
    # asgiref's ``async_to_sync`` still runs its coroutine in asyncio, on the loop that serves the request.
    return HttpResponse(asgirefs_async_to_sync(name_of_loop)())


async def asynchronous(request: HttpRequest, number: int) -> HttpResponse:
    await asyncio.to_thread(say, f"async {number}")
    return HttpResponse(await name_of_loop())


urlpatterns = [path("sync/<int:number>/", synchronous), path("async/<int:number>/", asynchronous)]


async def get(application: Any, target: str) -> None:
    scope = {"type": "http", "method": "GET", "path": target, "headers": [(b"host", b"localhost")]}
    client = ApplicationCommunicator(application, scope)
    await client.send_input({"type": "http.request"})
    assert (await client.receive_output(60))["status"] == 200
    assert b"asyncio" in (await client.receive_output(60))["body"]
    await client.wait(60)


async def main() -> None:
    application = get_asgi_application()
    ask = (get(application, f"/{kind}/{number}/") for kind in ("sync", "async") for number in range(VIEWS))
    await asyncio.gather(*ask)


if __name__ == "__main__":
    django.setup()
    with override_settings(ROOT_URLCONF=__name__), counted_loops() as loops:
        asyncio.run(main())
        aside = threading.Thread(target=asyncio.run, args=[main()])  # a second loop, on a thread of its own
        aside.start()
        aside.join()
    say("", "last")
    print(*sorted(loops))
