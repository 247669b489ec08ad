"""One request in the figures, if metrics or spans are wanted: its route, its status and its time."""

from __future__ import annotations

import time
from typing import Any

from .. import _tracing
from .._metrics import recording
from ..exceptions import WorkerPoolBusy
from .client import Client


class ServedRequest:
    """In the block, a request is served. Its route is known once its URL has been resolved."""

    __slots__ = ("_answered", "_began", "_client", "_span")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._began = 0.0 if recording.recorder is None else time.perf_counter()
        self._span = None if _tracing.tracer is None else _tracing.tracer.request(client.scope)

    def __enter__(self) -> None:
        if self._span is not None:
            self._answered = self._span.__enter__()

    def __exit__(self, *exception: Any) -> None:
        status = self._client.status or _status_after(exception[0])
        if self._span is not None:
            self._answered(self._client.route, status)
            self._span.__exit__(*exception)
        if recording.recorder is not None and self._began:
            requests = recording.recorder.requests_of(self._client.route)
            requests.answered(status, time.perf_counter() - self._began)


def _status_after(kind: type[BaseException] | None) -> int:
    """The status of the answer to a request that ends with such an exception; 0 if the client gets none."""
    if kind is None or not issubclass(kind, Exception):
        return 0
    return 503 if issubclass(kind, WorkerPoolBusy) else 500
