"""The parts that all benchmarks share: sides, comparisons, and the runner that measures them.

The rules:

- A *side* is one implementation of a workload. It runs in a process of its own, which warms up, measures, verifies that
  all the work was done, and prints one JSON line.
- The sides of a workload take turns, round after round (A B C A B C ...), so that other load on the machine affects all
  of them alike. Each round gives a ratio. The report has the median, the least and the greatest.
- Claims are about ratios. Absolute times depend on the machine.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

#: Rounds that count. One round before them does not count: it fills the disk cache and compiles files.
ROUNDS = 7

#: Seconds after which a side counts as stuck: work was lost, or the machine is too slow.
SIDE_TIMEOUT = 300

_DISTRIBUTIONS = (
    *("trio-channels", "trio", "django", "hypercorn", "asgiref"),
    *("channels", "channels-redis", "uvicorn", "uvloop", "granian", "daphne", "gunicorn", "websockets"),
)


@dataclass(frozen=True)
class Timing:
    """The measurement of a side.

    Args:
        operations: the number of operations.
        seconds: their time.
        cpu_seconds: their processor time.
        more: further figures by name, in microseconds per operation, for comparisons.
    """

    operations: int
    seconds: float
    cpu_seconds: float
    more: Mapping[str, float] = field(default_factory=dict)

    @property
    def us(self) -> float:
        """Microseconds per operation."""
        return self.seconds / self.operations * 1e6

    @property
    def cpu_us(self) -> float:
        """Microseconds of processor time per operation."""
        return self.cpu_seconds / self.operations * 1e6


class Stopwatch:
    """Times the measured part of a side: ``with Stopwatch() as watch: ...``, then ``watch.timing(operations)``."""

    def __enter__(self) -> Stopwatch:
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._wall, self._cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu

    def timing(self, operations: int, **more: float) -> Timing:
        return Timing(operations, self._wall, self._cpu, more)


@dataclass(frozen=True)
class Side:
    """One implementation of a workload.

    Args:
        run: a function that warms up, does the work this number of times, and verifies that all of it was done.
        count: the number of times; enough for about a second.
        needs: the modules that it imports and that may not be installed.
        trial: a small variant of `run`, for the tests; None if `run` with a small count will do.
        missing: returns what else is not installed, by name.
    """

    run: Callable[[int], Timing]
    count: int
    needs: tuple[str, ...] = ()
    trial: Callable[[int], Timing] | None = None
    missing: Callable[[], list[str]] = list

    @property
    def not_installed(self) -> list[str]:
        """The modules and programs that are not installed."""
        return [*(name for name in self.needs if importlib.util.find_spec(name) is None), *self.missing()]


@dataclass(frozen=True)
class Comparison:
    """A comparison of two sides, and its target.

    Args:
        title: the title of its row in the table.
        ours, peer: the names of the sides.
        faster: the target, at least: the peer's time divided by ours.
        slower: the target, at most: our time divided by the peer's. Without `faster` and `slower` there is no target.
        large: whether it takes so long that ``--quick`` leaves it out.
        of: the figure to compare: "us", the time, "cpu_us", the processor time, or one of `Timing.more`.
    """

    title: str
    ours: str
    peer: str
    faster: float | None = None
    slower: float | None = None
    of: str = "us"
    large: bool = False

    def ratio(self, ours: float, peer: float) -> float:
        above, below = (ours, peer) if self.slower is not None else (peer, ours)
        return above / below if below else float("inf")  # too little work for the clock

    def met(self, ratio: float) -> bool | None:
        if self.faster is not None:
            return ratio >= self.faster
        return ratio <= self.slower if self.slower is not None else None

    @property
    def target(self) -> str:
        if self.faster is not None:
            return f">= {self.faster:g}x"
        return f"<= {self.slower:g}x" if self.slower is not None else ""

    @property
    def meaning(self) -> str:
        return "time of ours / peer" if self.slower is not None else "speed of ours / peer"


@dataclass(frozen=True)
class Workload:
    """One file of this package: its sides and their comparisons.

    Args:
        name: the module's name.
        title: the title in the table and the chart.
        unit: the name of one operation.
    """

    name: str
    title: str
    unit: str
    sides: dict[str, Side]
    comparisons: Sequence[Comparison]


@dataclass
class Result:
    """A measured comparison: microseconds per operation in each round, and the ratio of each round."""

    workload: Workload
    comparison: Comparison
    ours: list[float]
    peer: list[float]
    ratios: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.ratios = [self.comparison.ratio(*pair) for pair in zip(self.ours, self.peer, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> str:
        return {True: "met", False: "missed", None: ""}[self.comparison.met(self.ratio)]

    def as_json(self) -> dict[str, Any]:
        """The comparison in the document of ``--output``; its figures are those of the sides."""
        comparison = self.comparison
        return {
            "title": comparison.title,
            "ours": comparison.ours,
            "peer": comparison.peer,
            "of": comparison.of,
            "meaning": comparison.meaning,
            "ratio": round(self.ratio, 3),
            "least": round(min(self.ratios), 3),
            "greatest": round(max(self.ratios), 3),
            "target": comparison.target,
            "met": comparison.met(self.ratio),
        }


@dataclass
class Measured:
    """A workload, the figures of each side in each round, and the comparisons of these."""

    workload: Workload
    figures: dict[str, list[dict[str, float]]]
    wanted: list[Comparison]

    @property
    def results(self) -> list[Result]:
        """The comparisons."""

        def of(comparison: Comparison, side: str) -> list[float]:
            return [figures[comparison.of] for figures in self.figures[side]]

        return [Result(self.workload, one, of(one, one.ours), of(one, one.peer)) for one in self.wanted]

    def as_json(self) -> dict[str, Any]:
        """The workload in the document of ``--output``: for each side the figures by name, round after round."""
        return {
            "title": self.workload.title,
            "unit": self.workload.unit,
            "sides": {
                side: {name: [round(one[name], 3) for one in rounds] for name in rounds[0] if name != "operations"}
                for side, rounds in self.figures.items()
            },
            "comparisons": [result.as_json() for result in self.results],
        }


def document(measured: Mapping[str, Measured], rounds: int, scale: float) -> dict[str, Any]:
    """All that ``--output`` writes."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **environment(),
        "rounds": rounds,
        "scale": scale,
        "workloads": {name: one.as_json() for name, one in measured.items()},
    }


def environment() -> dict[str, Any]:
    """The versions and the machine, on which the figures depend."""
    versions = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    if versions["trio-channels"] == "not installed":  # a checkout
        import trio_channels

        versions["trio-channels"] = trio_channels.__version__
    if shutil.which("node"):
        told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout
        versions["node"] = told.strip().removeprefix("v")
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    return {"versions": versions, "platform": system, "processor": _processor(), "processors": _cores()}


# -- running -----------------------------------------------------------------------------------------------------------


def run_side(workload: Workload, side: str, count: int) -> dict[str, float]:
    """Run a side in a fresh process.

    Returns:
        Microseconds per operation ("us"), those on a processor ("cpu_us"), and the side's further figures by name.

    Raises:
        RuntimeError: the side failed, lost work, or is stuck.
    """
    command = [sys.executable, "-m", f"benchmarks.{workload.name}", "--side", side, "--count", str(count)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        try:
            told, errors = process.communicate(timeout=SIDE_TIMEOUT)
        except subprocess.TimeoutExpired:
            # As Ctrl-C does, so that the side ends its servers.
            process.send_signal(signal.SIGINT)
            raise RuntimeError(f"{workload.name} {side} did not end within {SIDE_TIMEOUT} seconds") from None
    if process.returncode != 0:
        raise RuntimeError(f"{workload.name} {side} ended with status {process.returncode}:\n{errors}")
    line = json.loads(told.splitlines()[-1])
    return {name: figure for name, figure in line.items() if name != "side"}


def run_workload(workload: Workload, rounds: int = ROUNDS, scale: float = 1.0, *, quick: bool = False) -> Measured:
    """Measure the comparisons of a workload. A comparison whose peer is not installed is left out, with a line."""
    wanted = []
    for comparison in workload.comparisons:
        if quick and comparison.large:
            continue
        missing = workload.sides[comparison.ours].not_installed + workload.sides[comparison.peer].not_installed
        if missing:
            _progress(f"{workload.name}: left out {comparison.title!r}: not installed: {', '.join(missing)}\n")
        else:
            wanted.append(comparison)
    began = time.monotonic()
    sides = dict.fromkeys(name for comparison in wanted for name in (comparison.ours, comparison.peer))
    times: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(1 if quick else 0, rounds + 1):
        for name in sides:
            _progress(f"\r{workload.name}: round {number} of {rounds}: {name:<24}")
            count = max(1, round(workload.sides[name].count * scale))
            measured = run_side(workload, name, count)
            if number > 0:
                times[name].append(measured)
    _progress(f"\r{workload.name}: {time.monotonic() - began:.0f} seconds{'':<60}\n")

    return Measured(workload, times, wanted)


def _processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cores() -> int | None:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _progress(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


# -- showing -----------------------------------------------------------------------------------------------------------

_HEADINGS = ("workload", "comparison", "ours us", "peer us", "ratio", "least", "greatest", "target", "")


def table(results: Iterable[Result]) -> str:
    """The results as a table of text."""
    rows = [_HEADINGS]
    for result in results:
        ours, peer = statistics.median(result.ours), statistics.median(result.peer)
        ratios = (f"{number:.2f}x" for number in (result.ratio, min(result.ratios), max(result.ratios)))
        rows.append(
            (
                result.workload.title,
                result.comparison.title,
                f"{ours:.2f}",
                f"{peer:.2f}",
                *ratios,
                result.comparison.target,
                result.verdict,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


# -- the command line --------------------------------------------------------------------------------------------------


def main(workloads: Sequence[Workload], arguments: Sequence[str] | None = None) -> int:
    """The command line of the package and of each workload; returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure trio-channels against its peers.")
    parser.add_argument(
        "names", nargs="*", metavar="workload", help="only these: " + ", ".join(w.name for w in workloads)
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds that count (default %(default)s)")
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="the factor for the work of each process",
    )
    parser.add_argument("--quick", action="store_true", help="one round, with a tenth of the work: some minutes")
    parser.add_argument("--output", type=Path, help="write the figures and results to this file, as JSON")
    if len(workloads) == 1:
        parser.add_argument("--side", choices=workloads[0].sides, help="measure one side, in this process; prints JSON")
        parser.add_argument("--count", type=int, help="with --side: the number of operations")
    options = parser.parse_args(arguments)
    if len(workloads) == 1 and options.side:
        side = workloads[0].sides[options.side]
        timing = side.run(options.count or side.count)
        figures = {"us": timing.us, "cpu_us": timing.cpu_us, **timing.more}
        print(json.dumps({"side": options.side, **figures, "operations": timing.operations}))
        return 0
    known = {workload.name: workload for workload in workloads}
    if unknown := set(options.names) - known.keys():
        parser.error(f"unknown workloads: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    if options.quick:
        options.rounds, options.scale = 1, options.scale / 10
    measured: dict[str, Measured] = {}
    for name in options.names or known:
        measured[name] = run_workload(known[name], options.rounds, options.scale, quick=options.quick)
        if options.output is not None:  # after each, so that an end in the middle loses none
            options.output.write_text(json.dumps(document(measured, options.rounds, options.scale), indent=1) + "\n")
    print(table([result for one in measured.values() for result in one.results]))
    return 0
