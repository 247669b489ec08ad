from collections.abc import Iterable
from pathlib import Path

import trio
from django.contrib.auth.models import User
from django.http import HttpRequest, JsonResponse
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer


async def read(path: Path, found: dict[str, int]) -> None:
    found[path.name] = len(await trio.Path(path).read_bytes())


async def sizes(paths: Iterable[Path]) -> dict[str, int]:
    found: dict[str, int] = {}
    async with trio.open_nursery() as nursery:
        for path in paths:
            nursery.start_soon(read, path, found)
    return found  # here every task has ended


async def dashboard(request: HttpRequest) -> JsonResponse:
    """Two queries side by side, for two seconds at most."""
    counts: dict[str, int] = {}

    async def count(name: str, active: bool) -> None:
        counts[name] = await User.objects.filter(is_active=active).acount()

    with trio.move_on_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count, "active", True)
            nursery.start_soon(count, "inactive", False)
    return JsonResponse(counts)


class Poll(AsyncJsonWebsocketConsumer):
    """The connection is a nursery."""

    async def connect(self) -> None:
        await self.accept()
        self.start_soon(self.ask)

    async def ask(self) -> None:
        try:
            while True:
                await self.send_json({"users": await User.objects.acount()})
                await trio.sleep(10)
        finally:
            self.asking = False  # runs however the connection ends
