"""Who is in which room right now.

Every open page is a connection, and a person may have several. It is kept in this process, as the in-memory channel
layer is, and so it can never be stale after a crash. A site of several processes keeps it where all of them can see it.
"""

import threading
from collections import defaultdict

from .people import Person


class Roster:
    """The connections in each room, by channel name. Pages are rendered in worker threads, hence the lock."""

    def __init__(self) -> None:
        self._rooms: defaultdict[str, dict[str, Person]] = defaultdict(dict)
        self._lock = threading.Lock()

    def join(self, room: str, channel: str, person: Person) -> bool:
        """Add a connection. Returns whether the others have something to learn: a new person, or a new name."""
        with self._lock:
            news = person not in self._rooms[room].values()
            self._rooms[room][channel] = person
            return news

    def leave(self, room: str, channel: str) -> bool:
        """Remove a connection, if it is there. Returns whether it was the last one of that person."""
        with self._lock:
            gone = self._rooms[room].pop(channel, None)
            still_here = {person["id"] for person in self._rooms[room].values()}
            if not self._rooms[room]:
                del self._rooms[room]
            return gone is not None and gone["id"] not in still_here

    def people(self, room: str) -> list[Person]:
        """Everybody in the room, each once, in the order they came."""
        with self._lock:
            return list({person["id"]: person for person in self._rooms.get(room, {}).values()}.values())

    def counts(self) -> dict[str, int]:
        """How many people are in each room that is not empty."""
        with self._lock:
            return {room: len({person["id"] for person in here.values()}) for room, here in self._rooms.items()}


roster = Roster()
