from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from trio_channels.db import database_sync_to_async
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer


class Renames(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any) -> None:
        changed = await rename(content["from"], content["to"])
        await self.send_json({"renamed": changed})


@database_sync_to_async
def rename(old: str, new: str) -> bool:
    with transaction.atomic():  # one call is one thread: the transaction begins and ends in it
        user = User.objects.filter(username=old).first()
        if user is None:
            return False
        user.username = new
        user.save()
        return True
