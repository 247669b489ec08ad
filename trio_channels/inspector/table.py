"""An overview as text, for ``manage.py channels``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .asking import Overview
from .report import Report

#: Most groups that are shown.
MOST_GROUPS = 10


def render(seen: Overview, *, rows: int, width: int) -> str:
    """The overview in lines of at most `width` characters, with so many connections."""
    return "\n".join(line[:width].rstrip() for line in _lines(seen, rows)) + "\n"


def _lines(seen: Overview, rows: int) -> Iterator[str]:
    answered = f"{len(seen.reports)} process{'es' * (len(seen.reports) != 1)} answered"
    yield f"{answered}, {len(seen.silent)} did not; {seen.found} connections"
    if seen.problem:
        yield seen.problem
    yield ""
    silent = [
        (one.process.pid, one.process.host, one.process.role, "did not answer" + ", forgotten by the layer" * one.lost)
        for one in seen.silent
    ]
    yield from _table(
        ("PID", "HOST", "ROLE", "STATE", "WS", "HTTP", "MAILBOXES", "WAITING", "LOST"),
        [*map(_process, seen.reports), *silent],
    )
    if seen.connections and rows:
        yield ""
        yield from _table(
            ("PID", "KIND", "USER", "AGE", "WAIT", "GROUPS", "PATH"),
            [
                (
                    process.pid,
                    row.kind,
                    row.username or row.user or "-",
                    f"{row.age:.0f}s",
                    row.waiting,
                    len(row.groups) + row.more_groups,
                    row.path,
                )
                for process, row in seen.connections[:rows]
            ],
        )
    if seen.groups:
        yield ""
        yield from _table(
            ("GROUP", "LAYER", "MEMBERS", "PROCESSES"),
            [(name, layer, *counts) for layer, name, *counts in seen.groups[:MOST_GROUPS]],
        )
    if seen.queues:
        yield ""
        yield from _table(
            ("QUEUE", "LAYER", "BACKLOG", "RUNNING", "WORKERS", "DEAD"),
            [(it.channel, it.layer, _known(it.backlog), it.running, it.workers, _known(it.dead)) for it in seen.queues],
        )


def _process(seen: Report) -> tuple[Any, ...]:
    figures, process = seen.figures, seen.process
    layers = figures["layers"].values()
    kinds = figures["connections"]
    total = {key: sum(layer.get(key, 0) for layer in layers) for key in ("channels", "waiting", "dropped")}
    return (
        *(process.pid, process.host, process.role, figures["status"]),
        *(kinds.get("websocket", 0), kinds.get("http", 0)),
        *total.values(),
    )


def _known(number: int | None) -> Any:
    return "?" if number is None else number


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Columns as wide as their longest entry; the last one of a short row may go on below the others."""
    cells = [head, *([str(cell) for cell in row] for row in rows)]
    full = [row for row in cells if len(row) == len(head)]
    widths = [max(len(row[at]) for row in full) for at in range(len(head))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
