"""The worker's queue, as the site uses it: new work, and the messages that the worker gave up."""

from trio_channels.layers import get_channel_layer
from trio_channels.sync import async_to_sync

from .models import Picture

#: The named channel of the worker.
CHANNEL = "thumbnails"


def order(picture: Picture) -> None:
    """Have a worker make the thumbnail of a picture.

    Raises:
        ChannelFull: too many pictures are waiting.
    """
    async_to_sync(get_channel_layer().send)(CHANNEL, {"type": "picture.uploaded", "id": str(picture.pk)})


async def dead_letters() -> dict[str, tuple[str, str]]:
    """By the picture's id: the ids of the dead letters about pictures, and the reasons."""
    letters = await get_channel_layer().work_queue(CHANNEL).dead_letters(limit=1000)
    return {letter.message["id"]: (letter.id, letter.why) for letter in letters if letter.message is not None}


def try_again(picture: Picture) -> None:
    """Send the dead letter about a picture to the worker again; the deliveries are counted anew."""
    found = async_to_sync(dead_letters)().get(str(picture.pk))
    if found is not None:
        picture.change(Picture.State.WAITING, attempt=0)
        async_to_sync(get_channel_layer().work_queue(CHANNEL).requeue)(found[0])


def discard(picture: Picture) -> None:
    """Delete the dead letter about a picture, if there is one."""
    found = async_to_sync(dead_letters)().get(str(picture.pk))
    if found is not None:
        async_to_sync(get_channel_layer().work_queue(CHANNEL).discard)(found[0])
