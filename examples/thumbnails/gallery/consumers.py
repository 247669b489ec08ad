"""The consumer of the worker, and the consumer of the pages."""

from typing import Any

from django.conf import settings

from trio_channels.consumer import SyncConsumer
from trio_channels.db import database_sync_to_async
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer

from .models import SHOWN, Picture
from .pages import PAGES
from .samples import have_trouble
from .thumbnails import NoPictureError, make_thumbnail
from .work import dead_letters


class ThumbnailConsumer(SyncConsumer):
    """Runs in ``manage.py runworker thumbnails``: plain code in threads, several pictures at a time.

    A message is acknowledged when its method returns. If the method raises, or the process dies, the message is
    delivered again, and after the last delivery it is a dead letter. So each method must be safe to run twice.
    """

    def picture_uploaded(self, message: dict[str, Any]) -> None:
        picture = Picture.objects.filter(pk=message["id"]).first()
        if picture is None:
            return  # deleted meanwhile
        attempt = self.scope["delivery"]["count"]
        picture.change(Picture.State.WORKING, attempt=attempt)
        try:
            have_trouble(picture, attempt)
            make_thumbnail(picture.original, picture.thumbnail)
        except NoPictureError as error:
            # Another delivery would fail too, so the page shows the reason, and the message is acknowledged.
            picture.change(Picture.State.FAILED, str(error))
        except Exception as error:
            last = attempt >= settings.GALLERY_MAX_DELIVERIES
            picture.change(Picture.State.DEAD if last else Picture.State.RETRYING, f"{type(error).__name__}: {error}")
            raise
        else:
            picture.change(Picture.State.DONE)


class GalleryConsumer(AsyncJsonWebsocketConsumer):
    """One open page: all pictures first, then each change."""

    groups = (PAGES,)

    async def connect(self) -> None:
        await self.accept()
        # The page is a member of its group already, so later changes follow this message, and none is missed.
        await self.send_json({"all": await recent(await dead_letters())})

    async def picture_changed(self, event: dict[str, Any]) -> None:
        await self.send_json({"changed": event["picture"]})

    async def picture_removed(self, event: dict[str, Any]) -> None:
        await self.send_json({"removed": event["id"]})


@database_sync_to_async
def recent(letters: dict[str, tuple[str, str]]) -> list[dict[str, object]]:
    """The newest pictures, in the order of their uploads."""
    pictures = list(reversed(Picture.objects.all()[:SHOWN]))
    for picture in pictures:
        # If a worker was killed in the last delivery, only the dead letter tells it.
        if str(picture.pk) in letters and picture.state != Picture.State.DEAD:
            picture.state, picture.why = Picture.State.DEAD, letters[str(picture.pk)][1][:200]
    return [picture.as_json() for picture in pictures]
