"""Who works and who tells: the worker's consumer, and the pages'."""

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
    """Runs in ``manage.py runworker thumbnails``: plain code, on a worker thread, several pictures at a time.

    The message is acknowledged when a method returns. If it raises, or the process dies, the message comes again; so
    each must be right when it is done twice.
    """

    def picture_uploaded(self, message: dict[str, Any]) -> None:
        picture = Picture.objects.filter(pk=message["id"]).first()
        if picture is None:
            return  # deleted meanwhile
        try:
            make_thumbnail(picture.original, picture.thumbnail)
        except NoPictureError as error:
            # The visitor's mistake: it would fail the next time too, so that it is an answer, and no error.
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
        # It is a member already: what changes from now on comes after this, and so nothing is missed.
        await self.send_json({"pictures": await recent()})

    async def picture_changed(self, event: dict[str, Any]) -> None:
        await self.send_json({"pictures": [event["picture"]]})


@database_sync_to_async
def recent() -> list[dict[str, str]]:
    """The newest pictures, the oldest of them first."""
    return [picture.as_json() for picture in reversed(Picture.objects.all()[:SHOWN])]
