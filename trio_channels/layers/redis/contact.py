"""The contact of a shard with its Redis: the first one, made or refused for good, and the log lines of outages."""

from __future__ import annotations

import logging

import trio

from .connection import ConnectionLost, Misconfigured
from .hosts import Host

logger = logging.getLogger("trio_channels.layers.redis")

#: Seconds of an outage after which the log says that it lasts: then after twice as long, up to LONGEST_SILENCE later.
REMIND_AFTER, LONGEST_SILENCE = 60.0, 3600.0


class FirstContact:
    """Whether the first attempt of one task has ended, and how."""

    def __init__(self) -> None:
        self._ended = trio.Event()
        self._refusal: Misconfigured | None = None

    def made(self) -> None:
        """Note that Redis answers."""
        self._ended.set()

    def failed(self, error: ConnectionLost) -> bool:
        """Note that an attempt has failed; returns whether :meth:`wait` raises the error. Only the first one counts."""
        if isinstance(error, Misconfigured) and not self._ended.is_set():
            self._refusal = error
        self._ended.set()
        return error is self._refusal

    async def wait(self) -> None:
        """Wait for the end of the first attempt; raises Misconfigured if another one would fail in the same way."""
        await self._ended.wait()
        if self._refusal is not None:
            raise self._refusal


class Outage:
    """The log lines of an outage: one at its begin, one if waiting becomes useless, and a few while it lasts."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = trio.current_time()
        self._told: type[ConnectionLost] | None = None
        self._pause = REMIND_AFTER

    def failed(self, error: ConnectionLost) -> None:
        """Log a failed attempt if it says something new, or if the last line is long ago."""
        lasts = trio.current_time() - self._began
        if isinstance(error, Misconfigured) and self._told is not Misconfigured:
            logger.error("%s is not available: %s. Waiting does not help: correct it.", self._name, error)
        elif self._told is None:
            logger.warning("%s is not available: %s. Trying again until it is.", self._name, error)
        elif lasts >= self._pause:
            self._pause = min(2 * self._pause, self._pause + LONGEST_SILENCE)
            logger.warning("%s has not been available for %.0f seconds: %s", self._name, lasts, error)
            return
        else:
            return
        self._told = type(error)

    def ended(self, host: Host) -> None:
        """Log that Redis answers again."""
        logger.warning("%s is available again, at %s", self._name, host)
