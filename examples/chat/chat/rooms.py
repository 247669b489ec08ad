"""The names of rooms. A name is part of an address, and of the name of a channel layer group."""

from django.urls import register_converter
from django.urls.converters import StringConverter

MAX_LENGTH = 50
RULE = f"The name of a room is made of up to {MAX_LENGTH} letters from a to z, digits, hyphens and underscores."

#: The channel layer group in which the open pages track their rooms, as keys. No room has this name: a dot.
ALL_ROOMS = "all.rooms"


class RoomConverter(StringConverter):
    """``<room:room>`` in a path: a valid name."""

    regex = f"[-a-zA-Z0-9_]{{1,{MAX_LENGTH}}}"


register_converter(RoomConverter, "room")


def group_name(room: str) -> str:
    """The channel layer group of all pages in the room."""
    return f"chat.{room}"
