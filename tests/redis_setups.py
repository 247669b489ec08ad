"""Real Redis servers as several processes: a master with a replica and sentinels, and a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .redis_server import CLUSTER_BUS, PATIENCE, RedisServer

#: The name that the sentinels know the master by.
SERVICE = "chat-redis"
SLOTS = 16_384


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, in a thread that may block."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the servers of this test do not get ready")
        time.sleep(0.01)


class _Setup:
    """Servers that end with the ``with`` block."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def _started(self, server: RedisServer) -> RedisServer:
        self._stack.callback(server.close)
        server.start()
        return server

    def _set_up(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self._set_up()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


class Sentinel(RedisServer):
    """A sentinel that watches one master.

    Args:
        master: the master.
        quorum: how many sentinels must find it dead.
        lines: further lines of its configuration.
    """

    def __init__(self, master: RedisServer, quorum: int = 1, lines: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._configuration = Path(self._folder.name) / "sentinel.conf"
        self._configuration.write_text(
            "\n".join(
                [
                    f"port {self.port}",
                    "bind 127.0.0.1",
                    f"dir {self._folder.name}",
                    f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} {quorum}",
                    f"sentinel down-after-milliseconds {SERVICE} 400",
                    f"sentinel failover-timeout {SERVICE} 3000",
                    *lines,
                ]
            )
        )

    def _arguments(self) -> list[str]:
        return [str(self._configuration), "--sentinel"]

    def watch(self, master: RedisServer) -> None:
        """Watch another master under the same name, as an operator does after promoting a replica by hand."""
        self.ask("SENTINEL", "REMOVE", SERVICE)
        self.ask("SENTINEL", "MONITOR", SERVICE, "127.0.0.1", master.port, 1)

    def master_port(self) -> int:
        """The master's port, as the sentinel knows it."""
        return int(self.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])


class SentinelSetup(_Setup):
    """One master, one replica, and sentinels that know both.

    Args:
        options: of the master and the replica.
        sentinels: how many.
        lines: of each sentinel's configuration.
    """

    def __init__(self, options: tuple[str, ...] = (), sentinels: int = 1, lines: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._options = options
        self._number = sentinels
        self._lines = lines
        self.sentinels: list[Sentinel] = []

    def _set_up(self) -> None:
        fast = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", *self._options)
        self.master = self._started(RedisServer(*fast))
        self.replica = self._started(RedisServer(*fast, "--replicaof", "127.0.0.1", str(self.master.port)))
        wait_until(lambda: self.replica.ask("ROLE")[3] == b"connected")
        quorum = self._number // 2 + 1
        for _ in range(self._number):
            sentinel = Sentinel(self.master, quorum, self._lines)
            self._started(sentinel)
            self.sentinels.append(sentinel)

    def wait_for_the_replica(self) -> None:
        """Wait until every sentinel knows the replica, and every other sentinel: before that, nothing fails over."""

        def known(sentinel: Sentinel) -> bool:
            row = sentinel.ask("SENTINEL", "MASTER", SERVICE)
            facts = dict(zip(row[::2], row[1::2], strict=True))
            others = int(facts[b"num-other-sentinels"])
            if int(facts[b"num-slaves"]) != 1 or others != self._number - 1:
                return False
            [replica] = sentinel.ask("SENTINEL", "REPLICAS", SERVICE)
            state = dict(zip(replica[::2], replica[1::2], strict=True))
            return bool(state[b"flags"] == b"slave" and state[b"master-link-status"] == b"ok")

        wait_until(lambda: all(map(known, self.sentinels)))

    def wait_until_replicated(self) -> None:
        """Wait until the replica has everything that the master has now."""
        offset = self.master.ask("ROLE")[1]
        wait_until(lambda: self.replica.ask("ROLE")[4] >= offset)

    @property
    def host(self) -> dict[str, Any]:
        """For the layer's ``hosts``."""
        return {
            "sentinels": [("127.0.0.1", sentinel.port) for sentinel in self.sentinels],
            "master_name": SERVICE,
        }


class ClusterSetup(_Setup):
    """A Redis Cluster that shares the slots between its masters.

    Args:
        options: of every node.
        masters: how many.
        replicas: how many each master has, 0 or 1.
    """

    def __init__(self, *options: str, masters: int = 3, replicas: int = 0) -> None:
        super().__init__()
        self._options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1500", *options)
        self._masters = masters
        self._replicas = replicas
        self._moved: dict[int, RedisServer] = {}
        self.nodes: list[RedisServer] = []

    def _set_up(self) -> None:
        fast = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
        count = self._masters * (1 + self._replicas)
        self.nodes = [self._started(RedisServer(*self._options, *fast)) for _ in range(count)]
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, node in enumerate(self.masters):
            node.ask("CLUSTER", "ADDSLOTS", *range(*self._slots(number)))
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.port + CLUSTER_BUS)
        wait_until(lambda: all(self._state(node) == ("ok", count) for node in self.nodes))
        for master, replica in zip(self.masters, self.nodes[self._masters :], strict=False):
            replica.ask("CLUSTER", "REPLICATE", self.id(master))
            wait_until(lambda replica=replica: replica.ask("ROLE")[3:4] == [b"connected"])
        if self._replicas:  # the cluster does not replace a master whose replica it does not know
            wait_until(lambda: all(len(node.ask("ROLE")[2]) == self._replicas for node in self.masters))

    @property
    def masters(self) -> list[RedisServer]:
        """The nodes that have slots at first; node *i* of the others is the replica of master *i*."""
        return self.nodes[: self._masters]

    @property
    def hosts(self) -> dict[str, Any]:
        """For the layer's ``hosts``."""
        return {"cluster": [node.url for node in self.nodes]}

    def _slots(self, number: int) -> tuple[int, int]:
        return SLOTS * number // self._masters, SLOTS * (number + 1) // self._masters

    def owner(self, slot: int) -> RedisServer:
        """The master that has a slot, unless it was replaced by its replica."""
        return self._moved.get(slot) or next(
            node for n, node in enumerate(self.masters) if slot in range(*self._slots(n))
        )

    @staticmethod
    def id(node: RedisServer) -> str:
        """A node's id in the cluster."""
        return str(node.ask("CLUSTER", "MYID").decode())

    @staticmethod
    def _state(node: RedisServer) -> tuple[str, int]:
        info = dict(line.split(":", 1) for line in node.ask("CLUSTER", "INFO").decode().splitlines() if ":" in line)
        return info["cluster_state"], int(info["cluster_known_nodes"])

    def begin_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Mark a slot as moving; its keys are still at the source."""
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(target))

    def move_keys(self, slot: int, source: RedisServer, target: RedisServer, count: int = 1_000) -> int:
        """Move at most `count` keys of the slot; returns how many were moved."""
        keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, count)
        for key in keys:
            source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5_000)
        return len(keys)

    def end_move(self, slot: int, target: RedisServer) -> None:
        """Tell all masters the new owner of the slot; the new owner first, or keys could be lost."""
        for node in (target, *(other for other in self.masters if other is not target)):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", self.id(target))
        self._moved[slot] = target
