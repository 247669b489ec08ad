"""The server of each shard: one host each, perhaps found through sentinels, or a slot of a Redis Cluster.

A sentinel or cluster node may be dead, silent or out of date. So several are asked: the next one as soon as one has
failed or is slow. The first valid answer is taken.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

import trio

from ..._limits import COUNT
from ...exceptions import InvalidChannelLayerError
from .connection import Argument, ConnectionLost, Misconfigured, ReplyError, open_connection, refused
from .hosts import Host, parse_host

SLOTS = 16_384
#: Logical shards of a Redis Cluster.
CLUSTER_SHARDS = 4
#: Seconds after which the next node is asked as well, and seconds to wait for the answer of one node.
HEAD_START, PATIENCE = 0.25, 2.0


class Topology(Protocol):
    """Finds the servers of shards."""

    shards: int

    async def locate(self, shard: int) -> Host:
        """Find the server that holds a shard now; raises ConnectionLost without a valid answer."""


class Hosts:
    """Shard *i* is host *i*."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = tuple(hosts)
        self.shards = len(self._hosts)

    def __repr__(self) -> str:
        return f"<Hosts {', '.join(map(str, self._hosts))}>"

    async def locate(self, shard: int) -> Host:
        """See :class:`Topology`."""
        host = self._hosts[shard]
        if not host.sentinels:
            return host
        return await _first_answer(
            f"no sentinel knows the address of {host.master_name!r}",
            host.sentinels,
            lambda sentinel: _master(host, sentinel),
        )


def shard_of(name: str, shards: int) -> int:
    """The shard of a group, process or channel; the same in every process and release."""
    return zlib.crc32(name.encode()) % shards if shards > 1 else 0


async def _master(host: Host, sentinel: Host) -> Host:
    """The master that a sentinel names, if its own ``ROLE`` confirms it."""
    reply = await _ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", host.master_name or "")
    if reply is None:
        raise ConnectionLost(f"the sentinel at {sentinel} knows no master named {host.master_name!r}")
    master = host.at((reply[0].decode(), int(reply[1])))
    role = (await _ask(master, "ROLE"))[0].decode()
    if role != "master":
        raise ConnectionLost(f"the sentinel at {sentinel} names {master}, but its role is {role}")
    return master


class Cluster:
    """Shard *i* is the slot of ``{prefix:i}`` in a Redis Cluster."""

    def __init__(self, seeds: Sequence[Host], prefix: str, shards: int) -> None:
        if any(seed.address is None or seed.database for seed in seeds):
            raise InvalidChannelLayerError(
                "a node of a Redis Cluster must have an address, no sentinels, and database 0"
            )
        self._seeds = tuple(seeds)
        self._slots = [key_slot(f"{prefix}:{shard}") for shard in range(shards)]
        self.shards = shards
        self._known: list[Host] = []

    def __repr__(self) -> str:
        return f"<Cluster of {self.shards} shards, through {', '.join(map(str, self._seeds))}>"

    async def locate(self, shard: int) -> Host:
        """See :class:`Topology`."""
        slot = self._slots[shard]
        # In random order: an outdated node must not be the first each time.
        nodes = dict.fromkeys((*random.sample(self._known, len(self._known)), *self._seeds))
        return await _first_answer(
            f"the cluster has no owner for shard {shard}", nodes, lambda node: self._owner(slot, node)
        )

    async def _owner(self, slot: int, node: Host) -> Host:
        """The owner of a slot that a node names."""
        owner = None
        known: dict[Host, None] = {}
        asked = node.address[0] if isinstance(node.address, tuple) else "localhost"
        # [first slot, last slot, [ip, port, ...] of the master, of each replica]; without ip: the address we asked
        for first, last, (ip, port, *_), *_replicas in await _ask(node, "CLUSTER", "SLOTS"):
            host = node.at(((ip or b"").decode() or asked, port))
            known[host] = None
            if first <= slot <= last:
                owner = host
        self._known = list(known)
        if owner is None:
            raise ConnectionLost(f"{node} knows no owner of slot {slot}")
        return owner


async def _ask(node: Host, *command: Argument) -> Any:
    """Ask a node one command, over a connection of its own; an error reply raises ConnectionLost too."""
    connection = await open_connection(node, PATIENCE)
    try:
        [reply] = await connection.exchange(command, timeout=PATIENCE)
    finally:
        await connection.aclose()
    if isinstance(reply, ReplyError):
        raise refused(node, reply, " ".join(map(str, command[:2])))
    return reply


async def _first_answer(problem: str, nodes: Iterable[Host], ask: Callable[[Host], Awaitable[Host]]) -> Host:
    answers: list[Host] = []
    problems: list[str] = []
    kinds: set[type[ConnectionLost]] = set()

    async def ask_one(node: Host, failed: trio.Event) -> None:
        try:
            answers.append(await ask(node))
        except ConnectionLost as error:
            problems.append(str(error))
            kinds.add(type(error))
            failed.set()
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            # Another kind of server answers. It must not stop the question to the others.
            problems.append(f"{node} does not answer like Redis: {error}")
            kinds.add(Misconfigured)
            failed.set()
        else:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for node in nodes:
            failed = trio.Event()
            nursery.start_soon(ask_one, node, failed)
            with trio.move_on_after(HEAD_START):
                await failed.wait()
    if not answers:
        # Another node may know the answer, if only some are misconfigured.
        kind = Misconfigured if kinds == {Misconfigured} else ConnectionLost
        raise kind(f"{problem}: {'; '.join(problems)}")
    return answers[0]


def key_slot(tag: str) -> int:
    """The cluster slot of a hash tag: CRC16 (XMODEM) modulo 16384, by the Redis Cluster specification."""
    crc = 0
    for byte in tag.encode():
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return crc % SLOTS


def parse_topology(hosts: object, prefix: str) -> Topology:
    """Parse the ``hosts`` setting: a list of servers, one URI, or a dict that describes a cluster."""
    if isinstance(hosts, dict) and "cluster" in hosts:
        seeds, shards = hosts["cluster"], hosts.get("shards", CLUSTER_SHARDS)
        if set(hosts) - {"cluster", "shards"} or not isinstance(seeds, list | tuple) or not seeds:
            raise InvalidChannelLayerError(
                "hosts of a cluster must have the form {'cluster': [hosts to ask, ...], 'shards': 4}"
            )
        COUNT.require("the shards of a cluster", shards, InvalidChannelLayerError)
        return Cluster([parse_host(entry) for entry in seeds], prefix, shards)
    if isinstance(hosts, str):
        hosts = [hosts]
    if not isinstance(hosts, list | tuple) or not hosts:
        raise InvalidChannelLayerError("hosts must be a non-empty list, such as ['redis://localhost:6379']")
    return Hosts([parse_host(entry) for entry in hosts])
