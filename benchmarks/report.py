"""Writes the tables and the charts from results: ``python -m benchmarks.report benchmarks/results/*.json``.

The charts show the first file, by the number in its name. Every further one, of another machine, is a column beside it,
in the README only the second: ratios differ between machines, and so each table says how far. Nothing is measured here.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import svg
from .harness import ROOT

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
#: The files that show the table, relative to the root, and how many machines each shows at most; None: all.
PAGES: dict[str, int | None] = {"README.md": 2, "docs/discussion/performance.md": None}
CHARTS = ROOT / "docs" / "images"

#: The rows of the table: workload, comparison, and their names in the table.
ROWS = [
    ("p7_echo", "Channels on uvicorn", "echo over sockets", "Channels on uvicorn"),
    ("p7_echo", "Channels on granian", "", "Channels on granian"),
    ("p7_echo", "Channels on daphne", "", "Channels on daphne"),
    ("p7_echo", "websockets on uvloop", "", "`websockets` on uvloop, no framework"),
    ("p7_echo", "ws on Node", "", "`ws` on Node, no framework"),
    ("p7_echo", "the floor on Trio", "", "the least that Trio can do"),
    ("p9_broadcast", "500: handlers / channels-uvicorn", "`group_send` to 500 sockets", "Channels on uvicorn"),
    ("p9_broadcast", "500: handlers / floor", "", "the least that Trio can do"),
    (
        "p9_broadcast",
        "500: broadcast / websockets-uvloop",
        "`group_broadcast` to 500",
        "`websockets.broadcast`",
    ),
    ("p9_broadcast", "500: broadcast / ws-node", "", "`ws` on Node"),
    ("p9_broadcast", "500: broadcast / floor", "", "the least that Trio can do"),
    ("p10_visit", "without / channels-uvicorn", "connect, accept, close", "Channels on uvicorn"),
    ("p10_visit", "with a user / channels-uvicorn", "the same with session and user", "Channels on uvicorn"),
    ("p8_idle", "5,000: KiB of memory / channels-uvicorn", "memory of an idle connection", "Channels on uvicorn"),
    ("p8_idle", "5,000: KiB of memory / websockets-uvloop", "", "`websockets` on uvloop"),
    ("p11_http", "trivial / django-uvicorn", "Django view, trivial", "Django's ASGI handler on uvicorn"),
    ("p11_http", "trivial / django-gunicorn", "", "gunicorn, ten threads"),
    ("p11_http", "query / django-uvicorn", "Django view, one query", "Django's ASGI handler on uvicorn"),
    ("p11_http", "query / django-gunicorn", "", "gunicorn, ten threads"),
    ("p11_http", "async / django-uvicorn", "Django view, async", "Django's ASGI handler on uvicorn"),
    ("p11_http", "async / django-gunicorn", "", "gunicorn, ten threads"),
    ("p11_http", "stream / django-uvicorn", "a response of 100 MiB", "Django's ASGI handler on uvicorn"),
    ("p11_http", "stream / django-gunicorn", "", "gunicorn, ten threads"),
    ("p11_http", "upload / django-uvicorn", "an upload of 100 MiB", "Django's ASGI handler on uvicorn"),
    ("p11_http", "upload / django-gunicorn", "", "gunicorn, ten threads"),
    ("p12_two_processes", "messages / core", "two processes and Redis, messages", "channels_redis, core"),
    ("p12_two_processes", "messages / pubsub", "", "channels_redis, pubsub"),
    ("p12_two_processes", "one message, p99 / core", "the same, one message, p99", "channels_redis, core"),
    ("p12_two_processes", "one message, p99 / pubsub", "", "channels_redis, pubsub"),
    ("p3_redis", "1,000 members, core", "without sockets: `group_send` to 1,000 over Redis", "channels_redis, core"),
    ("p3_redis", "1,000 members, pubsub", "", "channels_redis, pubsub"),
    ("p3_redis", "8 processes x 125 members, core", "the same, in eight processes", "channels_redis, core"),
    ("p3_redis", "8 processes x 125 members, pubsub", "", "channels_redis, pubsub"),
    ("p3_redis", "8 processes x 125 members, core, Redis' CPU", "the same, Redis itself", "channels_redis, core"),
    ("p3_redis", "8 processes x 125 members, pubsub, Redis' CPU", "", "channels_redis, pubsub"),
    ("p3_redis", "10 senders, 8 receivers, core", "without sockets: 10 senders, 8 receivers", "channels_redis, core"),
    ("p3_redis", "10 senders, 8 receivers, pubsub", "", "channels_redis, pubsub"),
    ("p3_redis", "10 senders, 8 receivers, core, Redis' CPU", "the same, Redis itself", "channels_redis, core"),
    ("p3_redis", "10 senders, 8 receivers, pubsub, Redis' CPU", "", "channels_redis, pubsub"),
    ("p3_redis", "idle latency p99, core", "without sockets: one message, p99", "channels_redis, core"),
    ("p3_redis", "idle latency p99, pubsub", "", "channels_redis, pubsub"),
    ("p1_fan_out", "1,000 members, channels", "without sockets: `group_send` to 1,000", "Channels, in memory"),
    ("p1_fan_out", "1,000 members, plain Trio loop", "", "a plain Trio loop over memory channels"),
    ("p2_echo", "async consumer, channels", "without sockets: echo, async", "Channels"),
    ("p2_echo", "sync consumer, channels", "without sockets: echo, sync", "Channels"),
    ("p6_connect", "one client, channels", "without sockets: connect with a user", "Channels"),
    ("p5_orm_call", "one object, sync_to_async", "an ORM query from async code", "asgiref's `sync_to_async`"),
]

NAMES = {
    "ours": "trio-channels",
    "handlers": "trio-channels, group_send",
    "broadcast": "trio-channels, group_broadcast",
    "channels-uvicorn": "Channels on uvicorn",
    "channels-granian": "Channels on granian",
    "channels-daphne": "Channels on daphne",
    "channels-hypercorn": "Channels on hypercorn",
    "websockets-uvloop": "websockets on uvloop",
    "ws-node": "ws on Node",
    "floor": "the least that Trio can do",
    "django-uvicorn": "Django on uvicorn",
    "django-gunicorn": "Django on gunicorn",
}


@dataclass(frozen=True)
class Cell:
    """A comparison as the table shows it: how many times as cheap ours is."""

    median: float
    least: float
    greatest: float

    def __str__(self) -> str:
        return f"{_number(self.median)} ({_number(self.least)} to {_number(self.greatest)})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def cell(document: dict[str, Any], workload: str, title: str) -> Cell | None:
    """A comparison in a document of results, or None if it was not measured there."""
    found = document["workloads"].get(workload, {"comparisons": []})
    for comparison in found["comparisons"]:
        if comparison["title"] == title:
            sides, of = found["sides"], comparison["of"]
            ratios = [
                theirs / ours if ours else float("inf")
                for ours, theirs in zip(sides[comparison["ours"]][of], sides[comparison["peer"]][of], strict=True)
            ]
            return Cell(statistics.median(ratios), min(ratios), max(ratios))
    return None


def table(documents: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown: a row for each of ROWS that was measured, a column for each machine."""
    machines = [_machine(document) for document in documents]
    headings = ["workload", "compared with", *(f"on {machine}" for machine in machines)]
    if len(documents) == 1:
        headings[2:] = ["times as cheap"]
    lines = [_row(headings), _row(["---"] * len(headings))]
    current = shown = ""
    for workload, title, name, peer in ROWS:
        current = name or current
        cells = [cell(document, workload, title) for document in documents]
        if any(cells):
            first = "" if current == shown else current
            lines.append(_row([first, peer, *("-" if one is None else str(one) for one in cells)]))
            shown = current
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _machine(document: dict[str, Any]) -> str:
    number = "one core" if document["processors"] == 1 else f"{document['processors']} cores"
    return f"{number} of {document['processor']}"


def preface(documents: Sequence[dict[str, Any]]) -> str:
    """The sentences that say when and on which machines, with which versions, the figures were measured."""
    document = documents[0]
    versions = document["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "not installed")
    rounds = "one round" if document["rounds"] == 1 else f"{document['rounds']} rounds"
    return (
        f"Measured on {document['date'][:10]} on {_machine(document)} ({document['platform']}), {rounds}, interleaved: "
        f"{named}. The numbers say how many times as much server processor time the other side needs (or memory, "
        f"latency, and without sockets time): the median of the rounds, with the least and the greatest. Below 1 the "
        f"other side is ahead."
        f"{''.join(_beside(documents[0], other) for other in documents[1:])}"
    )


def _beside(first: dict[str, Any], other: dict[str, Any]) -> str:
    """What is said of a further machine: when it was measured, what differs there, and by how much the ratios do."""
    versions = [
        f"{name} {version}" for name, version in other["versions"].items() if version != first["versions"].get(name)
    ]
    shared = ", which clients and Redis share with the server" if other["processors"] == 1 else ""
    pairs = [[cell(document, *row[:2]) for document in (first, other)] for row in ROWS]
    factors = sorted(max(one.median, two.median) / min(one.median, two.median) for one, two in pairs if one and two)
    return (
        f" Beside it, {_machine(other)} ({other['platform']}){shared}, measured on {other['date'][:10]}"
        f"{' with ' + ', '.join(versions) if versions else ''}: in half of the rows the two ratios differ by less than "
        f"{statistics.median(factors):.2f} times, at most by {factors[-1]:.1f} times."
    )


def update(page: Path, text: str) -> None:
    """Put the text between the marks of a page."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise RuntimeError(f"expected the marks {BEGIN} and {END} in {page}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def text(documents: Sequence[dict[str, Any]]) -> str:
    """What the pages show between their marks."""
    return f"{preface(documents)}\n\n{table(documents)}"


def bars(document: dict[str, Any]) -> Iterator[tuple[str, str, str, list[tuple[str, float]]]]:
    """For each chart of bars: its file's name, its title, its unit, and the sides with their medians."""
    charts = (
        ("echo", "p7_echo", "Echo over sockets", "", ("ours-hypercorn",)),
        ("broadcast", "p9_broadcast", "A message to 500 sockets, for each", "-500", ()),
        ("visit", "p10_visit", "Connect, accept, close", "", ()),
    )
    for file, workload, title, suffix, left_out in charts:
        if workload not in document["workloads"]:
            continue
        sides = document["workloads"][workload]["sides"]
        found = [
            (NAMES[name], statistics.median(figures["cpu_us"]))
            for side, figures in sides.items()
            if (name := side.removesuffix(suffix) if side.endswith(suffix) else "") in NAMES and name not in left_out
        ]
        yield file, title, "us of server processor time", sorted(found, key=lambda one: one[1])


def curves(document: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, list[tuple[float, float]]]]]:
    """For each chart of curves over the size: its file's name, its title, its unit, and the points of each side."""
    charts = (
        ("broadcast-sizes", "p9_broadcast", "A message to a group, for each socket", "cpu_us", "us of processor time"),
        ("idle-sizes", "p8_idle", "Memory of an idle connection", "kib", "KiB"),
    )
    for file, workload, title, of, unit in charts:
        lines: dict[str, list[tuple[float, float]]] = {}
        for side, figures in document["workloads"].get(workload, {"sides": {}})["sides"].items():
            name, _, size = side.rpartition("-")
            if size.isdigit() and of in figures:
                lines.setdefault(NAMES[name], []).append((float(size), statistics.median(figures[of])))
        if lines:
            yield file, title, unit, {name: sorted(points) for name, points in lines.items()}


def draw(document: dict[str, Any], folder: Path) -> list[Path]:
    """Draw all charts, each for a light and for a dark page."""
    folder.mkdir(exist_ok=True)
    drawn = []
    for palette in (svg.LIGHT, svg.DARK):
        pictures = {file: svg.bars(title, unit, sides, palette) for file, title, unit, sides in bars(document)}
        pictures |= {file: svg.curves(title, unit, lines, palette) for file, title, unit, lines in curves(document)}
        for file, picture in pictures.items():
            path = folder / f"benchmark-{file}-{palette.name}.svg"
            path.write_text(picture)
            drawn.append(path)
    return drawn


def main(files: Sequence[str]) -> None:
    documents = [json.loads(Path(file).read_text()) for file in files]
    for page, most in PAGES.items():
        update(ROOT / page, text(documents[:most]))
    for path in draw(documents[0], CHARTS):
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m benchmarks.report RESULTS.json [RESULTS-OF-ANOTHER-MACHINE.json ...]")
    main(sys.argv[1:])
