"""Consumers on Trio that call a library for asyncio: in the loop inside of Trio, or in a thread."""

from __future__ import annotations

import asyncio

from trio_channels.compat import call_asyncio
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.sync import sync_to_async


async def look_up(word: str) -> str:  # a function of the library
    await asyncio.sleep(0.01)
    return word.upper()


class Inside(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(await call_asyncio(look_up, text_data or ""))


class InThread(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(await sync_to_async(asyncio.run)(look_up(text_data or "")))
