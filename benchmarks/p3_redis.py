"""P3: channel layers on Redis: ours against both of ``channels_redis``.

Each side has a Redis of its own, started for it: the same program, with the same options, on a unix socket. Programs:

- *fan-out*: one ``group_send`` at a time, to 1,000 members. The next follows when every member has got the last. The
  members are in the sender's process, or in 8 others, 125 in each.
- *sustained*: ten tasks send as fast as they can, to one member in another process, or to 8 in 8 processes. The time
  ends when every member has got all messages.
- *idle*: one message at a time, with a pause between two. The time of a message begins before its ``group_send``, and
  ends when the only member has it.

Every member must get each sender's messages once and in order; otherwise the side fails. Core drops messages beyond its
capacity, so every layer has more capacity than there are messages. The processor time of Redis is reported, too.
"""

from __future__ import annotations

import gc
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

from examples.private_redis import private_redis

from ._redis_receiver import Audience, message
from ._redis_worlds import DEADLINE, GROUP, WORLDS, Flag, World
from .harness import ROOT, Comparison, Side, Stopwatch, Timing, Workload, main

SENDERS = 10

#: Seconds between two messages, so that the layer is idle before each.
PAUSE = 0.002


def warm_up(count: int) -> int:
    return max(1, count // 5)


def server_cpu(url: str) -> float:
    """The processor time of the Redis, in seconds."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(url.removeprefix("unix://"))
        connection.sendall(b"INFO cpu\r\n")
        answer = connection.recv(65_536).decode()
    figures = dict(line.split(":") for line in answer.splitlines() if ":" in line)
    return float(figures["used_cpu_sys"]) + float(figures["used_cpu_user"])


class Receivers:
    """Processes with members; see ``_redis_receiver``.

    Args:
        name: the world's name.
        processes: the number of processes.
        members: the number of members in each process.
        portion: the deliveries to a process after which it reports.
        warm: the number of portions that do not count.
    """

    def __init__(self, name: str, world: World, processes: int, members: int, portion: int, warm: int) -> None:
        self._world = world
        self._pipe, theirs = socket.socketpair()
        command = [sys.executable, "-m", "benchmarks._redis_receiver", name, world.url, str(theirs.fileno())]
        command += map(str, (members, portion, warm))
        self._processes = [
            subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE)
            for _ in range(processes)
        ]
        theirs.close()
        self._pipe.setblocking(False)
        self._reports = 0
        self.cpu_seconds = 0.0

    async def all_report(self) -> None:
        """Wait until every process has reported once more."""
        while self._reports < len(self._processes):
            reports = await self._world.read(self._pipe)
            if not reports:
                raise RuntimeError("the receivers have failed")
            self._reports += len(reports)
        self._reports -= len(self._processes)

    def end(self) -> None:
        """End the processes, and add up their processor time."""
        self._pipe.close()
        for process in self._processes:
            told, _ = process.communicate(timeout=DEADLINE)
            if process.returncode != 0:
                raise RuntimeError(f"a receiver ended with status {process.returncode}")
            self.cpu_seconds += json.loads(told)


@contextmanager
def world_of(name: str) -> Iterator[World]:
    """A world with a Redis of its own."""
    with private_redis() as url:
        yield WORLDS[name](url)


async def measure(world: World, work: Callable[[range], Awaitable[None]], count: int) -> Timing:
    """Do the work after a warm-up; measure the processor time of Redis, too."""
    warm = warm_up(count)
    await work(range(warm))
    gc.collect()
    before = server_cpu(world.url)
    with Stopwatch() as watch:
        await work(range(warm, warm + count))
    return watch.timing(count, server_us=(server_cpu(world.url) - before) / count * 1e6)


def fan_out(name: str, members: int, count: int) -> Timing:
    """Fan-out to members in this process."""
    with world_of(name) as world:

        async def program() -> Timing:
            audience = Audience(members, lambda: None)
            async with world.members(audience.member, members) as layer:

                async def work(numbers: range) -> None:
                    for number in numbers:
                        arrived = world.flag()
                        audience.report = arrived.set
                        await layer.group_send(GROUP, message(0, number))
                        await arrived.wait()

                return await measure(world, work, count)

        return world.run(program)


def fan_out_apart(name: str, processes: int, members: int, count: int) -> Timing:
    """Fan-out to members in other processes."""
    with world_of(name) as world:
        receivers = Receivers(name, world, processes, members, members, warm_up(count))

        async def program() -> Timing:
            await receivers.all_report()
            async with world.members(lambda: lambda _: None, 0) as layer:

                async def work(numbers: range) -> None:
                    for number in numbers:
                        await layer.group_send(GROUP, message(0, number))
                        await receivers.all_report()

                return await measure(world, work, count)

        return and_theirs(world, program, receivers)


def sustained(name: str, processes: int, count: int) -> Timing:
    """Sustained messages from several tasks."""
    with world_of(name) as world:
        # In portions of a fifth: one to warm up, five that count.
        portion = SENDERS * max(1, count // SENDERS // 5)
        receivers = Receivers(name, world, processes, 1, portion, 1)

        async def program() -> Timing:
            await receivers.all_report()
            async with world.members(lambda: lambda _: None, 0) as layer:

                async def sender(which: int, numbers: range) -> None:
                    for number in numbers:
                        await layer.group_send(GROUP, message(which, number))

                async def receiver(portions: int) -> None:
                    for _ in range(portions):
                        await receivers.all_report()

                async def work(numbers: range) -> None:
                    each = range(numbers.start * portion // SENDERS, numbers.stop * portion // SENDERS)
                    senders = [partial(sender, which, each) for which in range(SENDERS)]
                    await world.together([*senders, partial(receiver, len(numbers))])

                return await measure(world, work, 5)

        return and_theirs(world, program, receivers, portion)


def and_theirs(world: World, program: Callable[[], Awaitable[Timing]], receivers: Receivers, each: int = 1) -> Timing:
    """Run a program, and add the processor time of its receivers. One operation of the program is `each` messages."""
    try:
        timing = world.run(program)
    finally:
        receivers.end()
    more = {name: figure / each for name, figure in timing.more.items()}
    return Timing(timing.operations * each, timing.seconds, timing.cpu_seconds + receivers.cpu_seconds, more)


def idle(name: str, count: int) -> Timing:
    """The latency of messages to one member in this process, with a pause before each."""
    with world_of(name) as world:

        async def program() -> Timing:
            audience = Audience(1, lambda: None)
            async with world.members(audience.member, 1) as layer:
                took: list[float] = []

                async def work(numbers: range) -> None:
                    took.clear()
                    for number in numbers:
                        await world.sleep(PAUSE)
                        arrived = world.flag()
                        started = time.perf_counter()

                        def report(arrived: Flag = arrived, started: float = started) -> None:
                            took.append(time.perf_counter() - started)
                            arrived.set()

                        audience.report = report
                        await layer.group_send(GROUP, message(0, number))
                        await arrived.wait()

                timing = await measure(world, work, count)
                hundredths = statistics.quantiles(took, n=100, method="inclusive")
                figures = {"p50_us": hundredths[49] * 1e6, "p99_us": hundredths[98] * 1e6}
                return Timing(count, sum(took), timing.cpu_seconds, {**timing.more, **figures})

        return world.run(program)


def sides() -> dict[str, Side]:
    """Every program in every world."""
    made = {}
    for name, few, many, most in (("ours", 100, 1_000, 20_000), ("core", 15, 20, 500), ("pubsub", 100, 300, 5_000)):
        needs = () if name == "ours" else ("channels_redis",)
        for program, run, trial, count in (
            ("1x1000", partial(fan_out, name, 1_000), partial(fan_out, name, 5), few),
            ("8x125", partial(fan_out_apart, name, 8, 125), partial(fan_out_apart, name, 2, 5), few),
            ("1-receiver", partial(sustained, name, 1), partial(sustained, name, 1), most),
            ("8-receivers", partial(sustained, name, 8), partial(sustained, name, 2), most // 2),
            ("idle", partial(idle, name), partial(idle, name), many if name == "core" else 1_000),
        ):
            made[f"{name}-{program}"] = Side(run, count, needs, trial)
    return made


def comparisons() -> list[Comparison]:
    """Every comparison."""
    made = []
    for title, program, core, pubsub in (
        ("1,000 members", "1x1000", 8, 1),
        ("8 processes x 125 members", "8x125", 6, 1.4),
        ("10 senders, 1 receiver", "1-receiver", 20, 4),
        ("10 senders, 8 receivers", "8-receivers", 20, 4),
    ):
        for peer, target in (("core", core), ("pubsub", pubsub)):
            ours, theirs = f"ours-{program}", f"{peer}-{program}"
            made += [
                Comparison(f"{title}, {peer}", ours, theirs, faster=target),
                Comparison(f"{title}, {peer}, CPU", ours, theirs, of="cpu_us"),
                Comparison(f"{title}, {peer}, Redis' CPU", ours, theirs, of="server_us"),
            ]
    for peer in ("core", "pubsub"):
        made += [
            Comparison(f"idle latency {name}, {peer}", "ours-idle", f"{peer}-idle", slower=1, of=f"{name}_us")
            for name in ("p50", "p99")
        ]
    return made


WORKLOAD = Workload(name="p3_redis", title="Redis", unit="message", sides=sides(), comparisons=comparisons())

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
