"""The consumer of the worker, and the consumer of the pages."""

from typing import Any

from trio_channels.consumer import SyncConsumer
from trio_channels.db import database_sync_to_async
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer
from trio_channels.sync import async_to_sync

from .models import SHOWN, Picture
from .thumbnails import NoPictureError, make_thumbnail

#: The group of all open pages.
PAGES = "gallery"


class ThumbnailConsumer(SyncConsumer):
    """Runs in ``manage.py runworker thumbnails``: plain code in threads, several pictures at a time.

    A message is acknowledged when its method returns. If the method raises, or the process dies, the message is
    delivered again. So each method must be safe to run twice.
    """

    def picture_uploaded(self, message: dict[str, Any]) -> None:
        picture = Picture.objects.filter(pk=message["id"]).first()
        if picture is None:
            return  # deleted meanwhile
        try:
            make_thumbnail(picture.original, picture.thumbnail)
        except NoPictureError as error:
            # Another delivery would fail too, so the page shows the reason, and the message is acknowledged.
            picture.state, picture.why = Picture.State.FAILED, str(error)[:200]
        else:
            picture.state, picture.why = Picture.State.DONE, ""
        picture.save(update_fields=["state", "why"])
        async_to_sync(self.channel_layer.group_send)(PAGES, {"type": "picture.changed", "picture": picture.as_json()})


class GalleryConsumer(AsyncJsonWebsocketConsumer):
    """One open page: all pictures first, then each change."""

    groups = (PAGES,)

    async def connect(self) -> None:
        await self.accept()
        # The page is a member of its group already, so later changes follow this message, and none is missed.
        await self.send_json({"pictures": await recent()})

    async def picture_changed(self, event: dict[str, Any]) -> None:
        await self.send_json({"pictures": [event["picture"]]})


@database_sync_to_async
def recent() -> list[dict[str, str]]:
    """The newest pictures, in the order of their uploads."""
    return [picture.as_json() for picture in reversed(Picture.objects.all()[:SHOWN])]
