"""The histories of a shard: streams in Redis. The messages are appended by the script that sends them.

The rules:

- A position is the epoch of its shard, the id of an entry, and a check, made of the entry's token and the group.
- It is recovered if the epoch is that of now, the entry still exists with that check, and all messages behind it are
  kept. So a position of another group, a guessed one, and one that a fail-over took back are not recovered.
- A new epoch begins when Redis may have lost messages, even those that no receiver has seen. Each connection of the
  pipeline asks for the epoch before it sends; see ``history_epoch.lua``.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass

import trio

from ..._asgi.protocol import Message
from ..history import HistoryRule, may_be_position, stamp
from ..message import Place
from .codec import GROUP, EntryCodec, Payload, UndecodableEntry
from .connection import Argument, RedisConnection, ReplyError, refused
from .delivery import Delivery
from .keys import ShardKeys
from .pipeline import Pipeline
from .positions import POSITION, format_position, place_of, position_at
from .scripts import GROUP_KEEP, HISTORY_EPOCH, HISTORY_RENEW

#: A process renews the time limit of a history so many times while it keeps a message. Each renewal makes it live for
#: one and a half times as long: so it outlives its last message.
RENEWALS = 4
#: Most groups whose keys and last renewal are remembered.
REMEMBERED_GROUPS = 10_000

#: A message to a group with history: its number (see :class:`ShardKeys`), the group, the blob, the rule of the history,
#: and the identity of one that may be sent again.
Part = tuple[int, str, bytes, HistoryRule, bytes]
#: An entry in Redis: its id, and its fields and their values.
_Entry = tuple[bytes, list[bytes]]


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message of a history, as members get it."""

    place: Place
    position: str
    message: Message
    exclude: frozenset[str]


@dataclass(frozen=True, slots=True)
class Reading:
    """The messages behind a position, and whether none is missing; the newest place and position of the group."""

    messages: list[KeptMessage]
    recovered: bool
    newest: Place
    position: str


class _KnownGroup:
    """A group's part of every command: its keys, how many entries are kept, and for how many milliseconds."""

    __slots__ = ("entries", "kept_ms", "keys", "renew_at")

    def __init__(self, keys: ShardKeys, group: str, rule: HistoryRule) -> None:
        self.keys = keys.group(group), keys.history(group)
        self.entries = rule.messages + 1
        self.kept_ms = kept_ms(rule)
        self.renew_at = -math.inf


class GroupKeeps:
    """Combines messages to groups with history that wait together into one command; as :class:`GroupSends`."""

    def __init__(self, keys: ShardKeys, inbox_capacity: int) -> None:
        self.epoch = new_epoch()  # and the replication id of its server, as in Redis
        self._keys = keys
        self._inbox_capacity = inbox_capacity
        self._known: dict[str, _KnownGroup] = {}

    def part(self, group: str, blob: bytes, rule: HistoryRule, identity: bytes = b"") -> Part:
        """A message and its number. Give it to the pipeline at once; see :meth:`ShardKeys.stamp`."""
        return self._keys.next_number(), group, blob, rule, identity

    def __call__(self, messages: list[Part]) -> tuple[Argument, ...]:
        """The command that sends and keeps the messages, in order."""
        keys, now = self._keys, trio.current_time()
        named = [keys.done, keys.epoch]
        places: dict[str, int] = {}
        head = keys.process, keys.memory_ms, keys.inboxes, self._inbox_capacity, keys.lease_ms, self.epoch
        rows: list[Argument] = [*head]
        for number, group, blob, rule, identity in messages:
            known = self._known.get(group) or self._learn(group, rule)
            place = places.get(group)
            if place is None:
                place = places[group] = len(named) + 1
                named += known.keys
            kept = -known.kept_ms
            if known.renew_at <= now:
                known.renew_at, kept = now + rule.seconds / RENEWALS, known.kept_ms
            note = 0
            if identity:
                named.append(keys.noted(identity))
                note = len(named)
            rows += number, place, blob, known.entries, kept, note
        return GROUP_KEEP(*named, args=tuple(rows))

    def _learn(self, group: str, rule: HistoryRule) -> _KnownGroup:
        if len(self._known) >= REMEMBERED_GROUPS:
            self._known.clear()
        known = self._known[group] = _KnownGroup(self._keys, group, rule)
        return known


class ShardHistory:
    """The histories of one shard."""

    def __init__(
        self, *, keys: ShardKeys, pipeline: Pipeline, codec: EntryCodec, delivery: Delivery, inbox_capacity: int
    ) -> None:
        self.keeps = GroupKeeps(keys, inbox_capacity)
        self._keys = keys
        self._pipeline = pipeline
        self._codec = codec
        self._delivery = delivery

    def __repr__(self) -> str:
        return f"<ShardHistory of {self._pipeline.name}, epoch {self.keeps.epoch}>"

    async def on_connected(self, connection: RedisConnection, timeout: float) -> None:
        """Learn the epoch, before anything is sent over a new connection of the pipeline."""
        command = HISTORY_EPOCH(self._keys.epoch, args=(new_epoch(),))
        [reply] = await connection.exchange(command, timeout=timeout)
        if isinstance(reply, ReplyError):
            raise refused(connection.host, reply, "the epoch of its histories, which it needs for the option history")
        self.keeps.epoch = reply.decode()

    async def send(self, group: str, blob: bytes, rule: HistoryRule, identity: bytes = b"") -> str | None:
        """Send a message to a group, and keep it; returns its position, None if it is not known any more.

        Args:
            identity: that of a message that may be sent again; see ``group_send_once``.
        """
        part = self.keeps.part(group, blob, rule, identity)
        answer = await self._pipeline.call_combined(self.keeps, part, len(blob))
        if not answer:
            return None
        return position_at(answer.decode(), f"{self._keys.process}-{part[0]}".encode(), group)

    async def read(self, group: str, rule: HistoryRule, since: object, limit: int) -> Reading:
        """The first messages behind a position; without one the newest ones. At most `limit`."""
        given = POSITION.fullmatch(str(since)) if may_be_position(since) else None
        nothing = limit == 0 or (since is not None and given is None)
        epoch, oldest, newest, entries = await self._entries(
            group, rule, None if given is None else given[2], 0 if nothing else limit
        )
        position = format_position(epoch, newest[0], newest[1][1], group)
        recovered = False
        if given is not None:
            recovered = bool(entries) and format_position(epoch, entries[0][0], entries[0][1][1], group) == since
            entries = entries[1:] if recovered else []
            recovered = recovered and (not entries or _milliseconds(entries[0][0]) > int(oldest))
            entries = entries[:limit]
        else:
            fresh = [entry for entry in reversed(entries) if _milliseconds(entry[0]) > int(oldest)]
            entries = [entry for entry in fresh if entry[1][2] == b"b"][-limit:]
        messages = [self._message(group, epoch, *entry) for entry in entries]
        complete = [kept for kept in messages if kept is not None]
        recovered = recovered and len(complete) == len(messages)
        if given is not None and not recovered:
            complete = []
        return Reading(
            messages=complete,
            recovered=recovered,
            newest=place_of(epoch, newest[0]),
            position=complete[-1].position if complete else position,
        )

    async def _entries(
        self, group: str, rule: HistoryRule, entry_id: str | None, limit: int
    ) -> tuple[bytes, bytes, _Entry, list[_Entry]]:
        """The answer of HISTORY_RENEW, and the entry of that id and those behind it; without an id the newest first."""
        key = self._keys.history(group)
        renew = HISTORY_RENEW(
            key,
            self._keys.epoch,
            args=(self.keeps.epoch, kept_ms(rule), rule.messages + 1, secrets.token_hex(12)),
        )
        if not limit:
            return *await self._pipeline.call(*renew), []
        bounds = ("XREVRANGE", key, "+", "-") if entry_id is None else ("XRANGE", key, entry_id, "+")
        # One more, for the position itself.
        found, entries = await self._pipeline.call_both(renew, (*bounds, "COUNT", limit + 1))
        return *found, entries

    def _message(self, group: str, epoch: bytes, entry_id: bytes, fields: list[bytes]) -> KeptMessage | None:
        try:
            payload: Payload = self._codec.unpack(fields[3])
            if payload.kind != GROUP or payload.name != group:
                raise UndecodableEntry(f"a message to another group, {payload.name!r:.40}")
        except UndecodableEntry as error:
            self._delivery.count_undecodable(f"{entry_id.decode()} of the history of {group}", error)
            return None
        position = format_position(epoch, entry_id, fields[1], group)
        stamp(payload.message, group, position)
        return KeptMessage(place_of(epoch, entry_id), position, payload.message, payload.exclude)


def new_epoch() -> str:
    """The name of a new epoch."""
    return secrets.token_hex(4)


def kept_ms(rule: HistoryRule) -> int:
    """The milliseconds for which a history keeps a message."""
    return max(int(rule.seconds * 1000), 1)


def _milliseconds(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])
