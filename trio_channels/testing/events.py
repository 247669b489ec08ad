"""Server-sent events, read from a stream (HTML Living Standard, section 9.2)."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event, as ``EventSource`` in a browser has it.

    Args:
        data: the lines of ``data:``, with newlines between.
        event: the event's type.
        id: the last event id, from this event or one before it.
    """

    data: str
    event: str = "message"
    id: str = ""

    def json(self) -> Any:
        """The data, decoded as JSON. Raises ValueError if it is not JSON."""
        return json.loads(self.data)


class EventParser:
    """Takes a stream apart; the bytes may come in any parts. Comments, and events without data, are skipped."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._text = ""
        self._after_return = False  # the last character was a carriage return
        self._data: list[str] = []
        self._event = ""
        self._id = ""

    def feed(self, part: bytes) -> Iterator[ServerSentEvent]:
        """Add bytes; the events that they complete."""
        text = self._decoder.decode(part)
        if not text:
            return
        if self._after_return:  # the other half of a line's end
            text = text.removeprefix("\n")
        self._after_return = text.endswith("\r")
        text = (self._text + text).replace("\r\n", "\n").replace("\r", "\n")
        *lines, self._text = text.split("\n")
        for line in lines:
            if line:
                self._field(*_name_and_value(line))
            else:
                yield from self._dispatch()

    def _field(self, name: str, value: str) -> None:
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value

    def _dispatch(self) -> Iterator[ServerSentEvent]:
        if self._data:
            yield ServerSentEvent("\n".join(self._data), self._event or "message", self._id)
        self._data, self._event = [], ""


def _name_and_value(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")  # a comment has no name
    return name, value.removeprefix(" ")
