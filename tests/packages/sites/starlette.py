"""Applications of Starlette and FastAPI beside Django, and some that need asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from django.urls import path, re_path
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from trio_channels.asgi import get_asgi_application
from trio_channels.routing import ProtocolTypeRouter, URLRouter

from .plain import urlpatterns

__all__ = ["urlpatterns"]

started = trio.Event()


@asynccontextmanager
async def on_trio(app: Any) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        started.set()
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def on_asyncio(app: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(asyncio.sleep(1))
    yield
    task.cancel()


async def hello(request: Request) -> PlainTextResponse:
    await trio.lowlevel.checkpoint()
    return PlainTextResponse(f"hello {request.query_params['name']}, started: {started.is_set()}")


async def sleep(request: Request) -> PlainTextResponse:
    await asyncio.sleep(1)
    return PlainTextResponse("not reached")


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


fast = FastAPI(root_path="")


@fast.get("/fast/sync")
def synchronous(name: str) -> dict[str, str]:
    return {"hello": name}


@fast.get("/fast/async")
async def asynchronous(name: str) -> dict[str, str]:
    await trio.lowlevel.checkpoint()
    return {"hello": name}


star = Starlette(
    routes=[Route("/star/hello", hello), Route("/star/sleep", sleep), WebSocketRoute("/star/echo", echo)],
    lifespan=on_trio,
)
application = ProtocolTypeRouter(
    {
        "http": URLRouter([re_path("^star/", star), re_path("^fast/", fast), re_path("", get_asgi_application())]),
        "websocket": URLRouter([path("star/echo", star)]),
        "lifespan": star,
    }
)
starlette_on_asyncio = Starlette(lifespan=on_asyncio)
fastapi_on_asyncio = FastAPI(lifespan=on_asyncio)
