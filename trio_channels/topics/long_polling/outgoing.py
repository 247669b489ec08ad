"""The messages for the client of a session, from the application's sending until the client has them."""

from __future__ import annotations

from collections import deque
from itertools import islice

#: A message: a text frame, or a binary one.
Data = str | bytes


class Outgoing:
    """Messages, numbered from 1 on.

    A message stays after it was sent, so that a stream that was cut can go on behind the last one that has arrived. It
    goes when the client has acknowledged it, or when newer ones need its room.

    Args:
        most: the characters that wait before the queue is full. One message alone always has room.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._messages: deque[Data] = deque()
        self._dropped = 0  # the number of the newest message that is no longer here
        self._sent = 0  # the number of the newest message that was sent
        self._unsent_size = 0
        self.size = 0  # of all messages here

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def unsent(self) -> int:
        """How many messages were not sent yet."""
        return self._dropped + len(self._messages) - self._sent

    @property
    def is_full(self) -> bool:
        """Whether a message has to wait until others were sent."""
        return self._unsent_size >= self._most

    def put(self, message: Data) -> None:
        """Add a message. Those that were sent make room for it."""
        self._messages.append(message)
        self.size += len(message)
        self._unsent_size += len(message)
        while self.size > self._most and self._dropped < self._sent:
            self._drop()

    def send_after(self, number: int) -> tuple[list[Data], int]:
        """The messages behind a number, which are sent now; and the number of the last one of all."""
        messages = list(islice(self._messages, max(0, number - self._dropped), None))
        self._sent = self._dropped + len(self._messages)
        self._unsent_size = 0
        return messages, self._sent

    def acknowledge(self, number: int) -> bool:
        """Forget the messages up to a number, which the client has. Returns whether the next one is still here."""
        if not self._dropped <= number <= self._sent:
            return False
        while self._dropped < number:
            self._drop()
        return True

    def resume(self, number: int) -> bool:
        """As :meth:`acknowledge`, for a stream that begins: the messages behind the number have to be sent again.

        Until then none of them makes room for others.
        """
        if not self.acknowledge(number):
            return False
        self._sent = number
        self._unsent_size = self.size
        return True

    def take(self) -> list[Data]:
        """All messages, for a client that acknowledges none."""
        messages, last = self.send_after(0)
        self.acknowledge(last)
        return messages

    def _drop(self) -> None:
        self.size -= len(self._messages.popleft())
        self._dropped += 1
