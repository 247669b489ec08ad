"""The names of rooms. A name is part of an address, and of the name of a topic."""

from django.urls import register_converter
from django.urls.converters import StringConverter

MAX_LENGTH = 50
RULE = f"The name of a room is made of up to {MAX_LENGTH} letters from a to z, digits, hyphens and underscores."

#: The topic of all rooms, and its group in the channel layer, in which the rooms track their people.
ALL_ROOMS = "rooms"
GROUP_OF_ALL = f"topic.{ALL_ROOMS}"


class RoomConverter(StringConverter):
    """``<room:room>`` in a path: a valid name."""

    regex = f"[-a-zA-Z0-9_]{{1,{MAX_LENGTH}}}"


register_converter(RoomConverter, "room")
