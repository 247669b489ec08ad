"""Where each shard is: one host each, found through sentinels where there are some, or a slot of a Redis Cluster."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol

from ._hosts import Host
from ._wire import LinkLost, ReplyError, open_wire

SLOTS = 16_384


class Topology(Protocol):
    """Says where shards are.

    Attributes:
        shards: how many there are.
    """

    shards: int

    async def locate(self, shard: int) -> Host:
        """The server that holds a shard now, asked anew each time.

        Raises:
            LinkLost: nobody could say.
        """


class Hosts:
    """Shard *i* is host *i*.

    Args:
        hosts: at least one.
    """

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = tuple(hosts)
        self.shards = len(self._hosts)

    def __repr__(self) -> str:
        return f"<Hosts {', '.join(map(str, self._hosts))}>"

    async def locate(self, shard: int) -> Host:
        """See :class:`Topology`."""
        host = self._hosts[shard]
        return await _ask_sentinels(host) if host.sentinels else host


def shard_of(name: str, shards: int) -> int:
    """The shard of a group, process or channel; the same in every process and release."""
    return zlib.crc32(name.encode()) % shards if shards > 1 else 0


async def _ask_sentinels(host: Host) -> Host:
    """The master that the first sentinel which answers names, if it says itself that it is one."""
    problems: list[str] = []
    for address in host.sentinels:
        sentinel = Host(address)
        try:
            wire = await open_wire(sentinel)
            try:
                [reply] = await wire.exchange(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", host.master_name or ""))
            finally:
                await wire.aclose()
        except LinkLost as error:
            problems.append(str(error))
            continue
        if isinstance(reply, ReplyError) or reply is None:
            problems.append(f"the sentinel at {sentinel} does not know {host.master_name!r}: {reply}")
            continue
        master = host.at((reply[0].decode(), int(reply[1])))
        if await _is_master(master):
            return master
        problems.append(f"{master} says that it is not the master (yet)")
    raise LinkLost(f"no sentinel could say where {host.master_name!r} is: {'; '.join(problems)}")


async def _is_master(host: Host) -> bool:
    try:
        wire = await open_wire(host)
    except LinkLost:
        return False
    try:
        [reply] = await wire.exchange(("ROLE",))
    except LinkLost:
        return False
    finally:
        await wire.aclose()
    return not isinstance(reply, ReplyError) and reply[0] == b"master"


class Cluster:
    """Shard *i* is the slot of ``{prefix:i}`` in a Redis Cluster.

    Args:
        seeds: nodes to ask.
        prefix: of the layer's keys.
        shards: how many.
    """

    def __init__(self, seeds: Sequence[Host], prefix: str, shards: int) -> None:
        self._seeds = tuple(seeds)
        self._slots = [key_slot(f"{prefix}:{shard}") for shard in range(shards)]
        self.shards = shards
        self._known: list[Host] = []

    def __repr__(self) -> str:
        return f"<Cluster of {self.shards} shards, through {', '.join(map(str, self._seeds))}>"

    async def locate(self, shard: int) -> Host:
        """See :class:`Topology`."""
        problems: list[str] = []
        for node in (*self._known, *self._seeds):
            try:
                wire = await open_wire(node)
                try:
                    [reply] = await wire.exchange(("CLUSTER", "SLOTS"))
                finally:
                    await wire.aclose()
            except LinkLost as error:
                problems.append(str(error))
                continue
            if isinstance(reply, ReplyError):
                problems.append(f"{node} says: {reply}")
                continue
            # [first slot, last slot, [ip, port, ...] of the master, then of its replicas]; no ip: where it was asked
            ranges = [
                (row[0], row[1], ((row[2][0] or b"").decode() or _name_of(node), int(row[2][1]))) for row in reply
            ]
            self._known = [node.at(address) for address in {address for _, _, address in ranges}]
            for first, last, address in ranges:
                if first <= self._slots[shard] <= last:
                    return node.at(address)
            problems.append(f"{node} knows no owner of slot {self._slots[shard]}")
        raise LinkLost(f"the cluster has no owner for shard {shard}: {'; '.join(problems)}")


def _name_of(node: Host) -> str:
    """The name a node was reached by; an empty one in a reply means that."""
    return node.address[0] if isinstance(node.address, tuple) else "localhost"


def key_slot(tag: str) -> int:
    """The cluster slot of a hash tag: CRC16 (XMODEM) modulo 16384, as the Redis Cluster specification gives it."""
    crc = 0
    for byte in tag.encode():
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return crc % SLOTS
