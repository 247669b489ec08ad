"""A snapshot of all figures of one process, its encoding, and the sum of several.

A snapshot has rows: a family, the values of its labels, and numbers, one for a counter or a gauge. The numbers of a
histogram are the counts of its buckets, each alone, and the sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

Row = tuple[str, tuple[str, ...], list[float]]
#: (family, values of its labels) -> numbers.
Snapshot = dict[tuple[str, tuple[str, ...]], list[float]]


class Family(NamedTuple):
    """The description of some figures: what they count, their labels, and how those of several processes add up."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    together: Literal["sum", "least"] = "sum"


_ROUTE = ("protocol", "route")

#: Every family, by its name without the ending that OpenMetrics demands of a counter, ``_total``.
FAMILIES: dict[str, Family] = {
    "trio_channels_connections": Family(
        "gauge", "WebSockets, requests to HTTP consumers and messages of workers that are served now.", _ROUTE
    ),
    "trio_channels_connections_opened": Family("counter", "The same, so far.", _ROUTE),
    "trio_channels_connections_failed": Family("counter", "Those that ended with an exception.", _ROUTE),
    "trio_channels_asyncio_connections": Family(
        "gauge", "Those whose consumer runs on asyncio, by its class.", ("consumer",)
    ),
    "trio_channels_asyncio_connections_opened": Family("counter", "The same, so far.", ("consumer",)),
    "trio_channels_handler_seconds": Family("histogram", "Time that a handler of a consumer took.", _ROUTE),
    "trio_channels_websocket_received": Family("counter", "Messages from WebSocket clients.", ("route",)),
    "trio_channels_websocket_sent": Family("counter", "Messages to WebSocket clients.", ("route",)),
    "trio_channels_websocket_closes": Family(
        "counter", "WebSockets that have ended, by close code.", ("route", "code")
    ),
    "trio_channels_request_seconds": Family("histogram", "Time that Django took for a request.", ("route",)),
    "trio_channels_responses": Family("counter", "Answers of Django; status 0: the client left.", ("route", "status")),
    "trio_channels_mailboxes": Family("gauge", "Mailboxes of connections and subscribers.", ("layer",)),
    "trio_channels_mailbox_waiting": Family("gauge", "Messages that wait in mailboxes.", ("layer",)),
    "trio_channels_mailbox_waited": Family("counter", "Messages whose receiver was busy when they came.", ("layer",)),
    "trio_channels_mailbox_overflows": Family("counter", "Messages that a full mailbox lost.", ("layer",)),
    "trio_channels_layer_memberships": Family("gauge", "Pairs of group and member.", ("layer",)),
    "trio_channels_layer_sent": Family("counter", "Messages that a layer accepted, by call.", ("layer", "call")),
    "trio_channels_layer_delivered": Family("counter", "Messages taken out of mailboxes.", ("layer",)),
    "trio_channels_layer_lost": Family("counter", "Messages that were not delivered, by reason.", ("layer", "reason")),
    "trio_channels_layer_healthy": Family("gauge", "Processes in which the layer works.", ("layer",)),
    "trio_channels_layer_shards": Family("gauge", "Connections to servers of a layer, by state.", ("layer", "state")),
    "trio_channels_layer_outages": Family("counter", "Outages of the servers of a layer.", ("layer",)),
    "trio_channels_layer_gaps": Family("counter", "Gaps that the servers of a layer caused.", ("layer",)),
    "trio_channels_threads": Family("gauge", "Threads of the pool, by state.", ("state",)),
    "trio_channels_threads_limit": Family("gauge", "Most threads of the pool."),
    "trio_channels_threads_waiting": Family("gauge", "Calls that wait for a thread."),
    "trio_channels_threads_calls": Family("counter", "Calls made on threads."),
    "trio_channels_server_connections": Family("gauge", "Open network connections, idle ones included."),
    "trio_channels_server_requests": Family("gauge", "HTTP requests that are being answered."),
    "trio_channels_server_accepted": Family("counter", "Network connections accepted."),
    "trio_channels_server_refused": Family("counter", "Network connections refused, beyond the limits."),
    "trio_channels_server_refusals": Family("counter", "Requests that the server refused, by status.", ("status",)),
    "trio_channels_server_cut": Family("counter", "Connections that the server cut, by reason.", ("reason",)),
    "trio_channels_worker_running": Family("gauge", "Handlers of workers that run.", ("channel",)),
    "trio_channels_worker_messages": Family("counter", "Messages of workers, by outcome.", ("channel", "outcome")),
    "trio_channels_queue_backlog": Family(
        "gauge", "Messages in a named channel that are not done.", ("layer", "channel")
    ),
    "trio_channels_queue_dead": Family("gauge", "Dead letters of a named channel.", ("layer", "channel")),
    "trio_channels_event_loop_lag_seconds": Family("histogram", "How late the event loop wakes a task."),
    "trio_channels_processes": Family("gauge", "Processes that serve, by whether they answer.", ("state",)),
    "process_cpu_seconds": Family("counter", "Processor time."),
    "process_resident_memory_bytes": Family("gauge", "Resident memory."),
    "process_open_fds": Family("gauge", "Open file descriptors."),
    "process_start_time_seconds": Family("gauge", "Start of the oldest process, in Unix time.", together="least"),
}

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Row])


def encode(snapshot: Snapshot) -> bytes:
    """A snapshot as bytes."""
    return _encoder.encode([(family, labels, numbers) for (family, labels), numbers in snapshot.items()])


def decode(data: bytes) -> Snapshot:
    """A snapshot from its bytes."""
    return {(family, labels): numbers for family, labels, numbers in _decoder.decode(data)}


def total(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The figures of several processes together."""
    together: Snapshot = {}
    for snapshot in snapshots:
        for key, numbers in snapshot.items():
            others = together.get(key)
            if others is None:
                together[key] = list(numbers)
            elif FAMILIES[key[0]].together == "least":
                together[key] = list(map(min, others, numbers))
            else:
                together[key] = [one + other for one, other in zip(others, numbers, strict=True)]
    return together


def latest(before: Snapshot, now: Snapshot) -> Snapshot:
    """A later snapshot of one process. A counter keeps the value of a part that has ended since."""
    merged = lasting(before) | now
    for key, numbers in merged.items():
        if FAMILIES[key[0]].kind != "gauge" and key in before:
            merged[key] = list(map(max, before[key], numbers))
    return merged


def lasting(snapshot: Snapshot) -> Snapshot:
    """The part of a snapshot that counts after its process has ended: a sum must never decrease."""
    return {key: numbers for key, numbers in snapshot.items() if FAMILIES[key[0]].kind != "gauge"}
