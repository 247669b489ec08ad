"""A snapshot of this process: of the recorder, and of all parts that count by themselves."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .._connection.census import asyncio_statistics
from .._metrics.recording import Recorder
from .._metrics.snapshot import Snapshot
from .._threads.pool import existing_pool
from ..exceptions import ChannelLayerUnavailable
from ..layers import channel_layers
from ..layers.base import ChannelLayer
from ..server.run import statistics
from ..worker import running_workers

logger = logging.getLogger("trio_channels.metrics")

_STARTED = time.time()
#: This process, on Linux.
PROC = Path("/proc/self")
#: Running totals of a layer: messages that were not delivered, beside overflows.
_LOSSES = ("expired", "full", "gone")
_OUTCOMES = ("handled", "failed", "dead", "taken_over", "expired", "superseded")


def collect(recorder: Recorder) -> Snapshot:
    """The figures of this process; call it in the Trio run that serves."""
    snapshot: Snapshot = {}
    _add_connections(snapshot, recorder)
    for alias in channel_layers.configs if recorder.layers is None else recorder.layers:
        try:
            _add_layer(snapshot, alias, _layer(recorder, alias))
        except Exception as error:  # an error may name hosts and passwords: it goes to the log only
            logger.warning("the statistics of the channel layer %r are not available: %r", alias, error)
            _put(snapshot, "layer_healthy", 0, alias)
    _add_threads(snapshot)
    _add_server(snapshot)
    for worker in running_workers():
        for channel, seen in worker.statistics().channels.items():
            _put(snapshot, "worker_running", seen.running, channel)
            for outcome in _OUTCOMES:
                _put(snapshot, "worker_messages", getattr(seen, outcome), channel, outcome)
    _add_process(snapshot)
    return snapshot


def _put(snapshot: Snapshot, name: str, number: float, *labels: str) -> None:
    """Add a number to a counter or a gauge."""
    numbers = snapshot.setdefault((f"trio_channels_{name}", labels), [0.0])
    numbers[0] += number


def _add_connections(snapshot: Snapshot, recorder: Recorder) -> None:
    for (protocol, route), series in recorder.series.items():
        _put(snapshot, "connections", series.open, protocol, route)
        _put(snapshot, "connections_opened", series.opened, protocol, route)
        _put(snapshot, "connections_failed", series.failed, protocol, route)
        snapshot["trio_channels_handler_seconds", (protocol, route)] = series.handlers.values()
        if protocol == "websocket":
            _put(snapshot, "websocket_received", series.received, route)
            _put(snapshot, "websocket_sent", series.sent, route)
            _put_each(snapshot, "websocket_closes", series.closes, route)
    asyncio = asyncio_statistics()
    _put_each(snapshot, "asyncio_connections", asyncio.open)
    _put_each(snapshot, "asyncio_connections_opened", asyncio.opened)
    for route, requests in recorder.requests.items():
        snapshot["trio_channels_request_seconds", (route,)] = requests.views.values()
        _put_each(snapshot, "responses", requests.statuses, route)
    snapshot["trio_channels_event_loop_lag_seconds", ()] = recorder.lag.values()


def _put_each(snapshot: Snapshot, name: str, counts: Mapping[Any, float], *labels: str) -> None:
    """Add numbers of one family that differ in their last label."""
    for last, number in counts.items():
        _put(snapshot, name, number, *labels, str(last))


def _add_layer(snapshot: Snapshot, alias: str, layer: Any) -> None:
    seen = layer.statistics()
    _put(snapshot, "mailboxes", seen.channels, alias)
    _put(snapshot, "mailbox_waiting", seen.waiting, alias)
    _put(snapshot, "mailbox_waited", seen.waited, alias)
    _put(snapshot, "mailbox_overflows", seen.dropped, alias)
    _put(snapshot, "layer_memberships", seen.memberships, alias)
    _put_each(snapshot, "layer_sent", {"send": seen.sent, "group_send": seen.group_sent}, alias)
    _put(snapshot, "layer_delivered", seen.delivered, alias)
    _put_each(snapshot, "layer_lost", {reason: getattr(seen, reason) for reason in _LOSSES}, alias)
    _put(snapshot, "layer_healthy", seen.healthy, alias)
    if hasattr(layer, "shard_statistics"):  # a layer with a backend, which may be away
        for state in ("working", "connecting", "broken"):
            _put(snapshot, "layer_shards", 0, alias, state)
        for shard in layer.shard_statistics():
            _put(snapshot, "layer_shards", 1, alias, shard.state)
            _put(snapshot, "layer_outages", shard.pipeline.outages, alias)
            _put(snapshot, "layer_gaps", shard.gaps, alias)


def _add_threads(snapshot: Snapshot) -> None:
    pool = existing_pool()
    if pool is not None:
        seen = pool.statistics()
        _put_each(snapshot, "threads", {"leased": seen.leased, "held": seen.held, "idle": seen.idle})
        _put(snapshot, "threads_limit", seen.limit)
        _put(snapshot, "threads_waiting", seen.waiting)
        _put(snapshot, "threads_calls", seen.calls)


def _add_server(snapshot: Snapshot) -> None:
    seen = statistics()
    _put(snapshot, "server_connections", seen.connections)
    _put(snapshot, "server_requests", seen.requests)
    _put(snapshot, "server_accepted", seen.accepted)
    _put(snapshot, "server_refused", seen.refused)
    _put_each(snapshot, "server_refusals", seen.refusals)
    _put_each(snapshot, "server_cut", seen.ended)


def _add_process(snapshot: Snapshot) -> None:
    snapshot["process_cpu_seconds", ()] = [time.process_time()]
    snapshot["process_start_time_seconds", ()] = [_STARTED]
    if PROC.exists():
        pages = int((PROC / "statm").read_text().split()[1])
        snapshot["process_resident_memory_bytes", ()] = [float(pages * os.sysconf("SC_PAGE_SIZE"))]
        snapshot["process_open_fds", ()] = [float(len(list((PROC / "fd").iterdir())))]


def _layer(recorder: Recorder, alias: str) -> ChannelLayer:
    return (channel_layers if recorder.layers is None else recorder.layers)[alias]


async def add_queues(snapshot: Snapshot, recorder: Recorder, queues: Iterable[tuple[str, str]]) -> None:
    """Add the figures of named channels, which belong to no process; leave out those whose backend is away."""
    for alias, channel in queues:
        try:
            seen = await _layer(recorder, alias).work_queue(channel).size()
        except ChannelLayerUnavailable as error:
            logger.warning("the size of the queue %r is not available: %r", channel, error)
            continue
        _put(snapshot, "queue_backlog", seen.backlog, alias, channel)
        _put(snapshot, "queue_dead", seen.dead, alias, channel)
