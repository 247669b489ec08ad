"""Messages to all open pages."""

from typing import TYPE_CHECKING

from trio_channels.layers import get_channel_layer
from trio_channels.sync import async_to_sync

if TYPE_CHECKING:
    from .models import Picture

#: The group of all open pages.
PAGES = "gallery"


def show(picture: "Picture") -> None:
    """Have every page show a picture as it is now."""
    async_to_sync(get_channel_layer().group_send)(PAGES, {"type": "picture.changed", "picture": picture.as_json()})


def forget(picture: str) -> None:
    """Have every page drop the picture with this id."""
    async_to_sync(get_channel_layer().group_send)(PAGES, {"type": "picture.removed", "id": picture})
