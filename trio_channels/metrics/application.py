"""The ASGI application that answers Prometheus."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import trio

from .._asgi.protocol import Receive, Scope, Send
from .._asgi.responses import deny_websocket, respond_plainly
from .._limits import Rule
from .._metrics import recording
from .._metrics.recording import BUCKETS
from .._metrics.snapshot import FAMILIES, Snapshot, decode
from ..exceptions import ConfigurationError
from ..layers.base import ChannelLayer
from .collecting import add_queues, collect

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

_METHODS = ("GET", "HEAD")
_TOKEN = Rule(
    "a non-empty str of ASCII characters",
    lambda value: isinstance(value, str) and 0 < len(value.encode("ascii", "ignore")) == len(value),
)
_PORT = Rule(
    "a port number", lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536
)


class MetricsApplication:
    """Answers with the figures in the OpenMetrics format, for Prometheus.

    Args:
        token: a secret that the request must carry, as ``Authorization: Bearer <token>``; others get 401. By default
            everybody who reaches the application gets an answer.
        port: the port of the server that the request must have come to; others get 404. So the figures can have an
            address of their own. By default any.
        layers: alias -> channel layer; by default those of ``CHANNEL_LAYERS``.
        queues: pairs of a layer's alias and a named channel, whose backlog and dead letters are counted at each
            request.

    With ``trio-channels serve --workers N`` the answer is the sum over all processes, whichever of them answers.
    A label holds a protocol, a route's pattern, a code or an alias: never a path, a group or a user.

    Raises:
        ConfigurationError: ``prometheus_client`` is not installed, or an argument is wrong.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        port: int | None = None,
        layers: Mapping[str, ChannelLayer] | None = None,
        queues: Iterable[tuple[str, str]] = (),
    ) -> None:
        try:
            from prometheus_client import CollectorRegistry
        except ImportError:
            raise ConfigurationError(
                "a MetricsApplication needs the package prometheus_client; install it: pip install "
                "'trio-channels[metrics]'"
            ) from None
        if token is not None:
            _TOKEN.require("the token of a MetricsApplication", token)
        if port is not None:
            _PORT.require("the port of a MetricsApplication", port)
        self._token = None if token is None else b"bearer " + token.encode()
        self._port = port
        self._queues = tuple(queues)
        self._registry: type[CollectorRegistry] = CollectorRegistry
        self._recorder = recording.start()
        self._recorder.layers = layers or self._recorder.layers

    def __repr__(self) -> str:
        return f"<MetricsApplication{'' if self._token is None else ' with a token'}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Answer a request, or deny a WebSocket. Cancellation: the client may get none or a part of the answer."""
        if scope["type"] == "websocket":
            await deny_websocket(receive, send)
        elif scope["type"] != "http":
            raise ConfigurationError(f"a metrics application expects an 'http' scope; got {scope['type']!r}")
        elif self._port is not None and (scope.get("server") or (None, None))[1] != self._port:
            await respond_plainly(send, 404, "Not found")
        elif not self._may_read(scope):
            await respond_plainly(send, 401, "A token is needed.", [(b"www-authenticate", b"Bearer")])
        elif scope["method"] not in _METHODS:
            await respond_plainly(send, 405, "Ask with GET or HEAD.", [(b"allow", ", ".join(_METHODS).encode())])
        else:
            await self._answer(send, with_body=scope["method"] == "GET")

    def _may_read(self, scope: Scope) -> bool:
        if self._token is None:
            return True
        given = next((value for name, value in scope.get("headers", ()) if name == b"authorization"), b"")
        kind, _, secret = given.partition(b" ")
        return hmac.compare_digest(kind.lower() + b" " + secret.strip(), self._token)

    async def _answer(self, send: Send, *, with_body: bool) -> None:
        from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

        try:
            snapshot = await self._snapshot()
        except trio.TooSlowError:
            await respond_plainly(send, 503, "The other processes cannot be asked.")
            return
        registry = self._registry()
        registry.register(_Exposition(snapshot))
        body: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
        headers = [
            (b"content-type", CONTENT_TYPE_LATEST.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body if with_body else b""})

    async def _snapshot(self) -> Snapshot:
        """The figures of all processes. Raises TooSlowError if the others cannot be asked any more."""
        others = self._recorder.others
        if others is None:
            snapshot = collect(self._recorder)
            snapshot["trio_channels_processes", ("answering",)] = [1.0]
        else:
            snapshot = decode(await others())
        await add_queues(snapshot, self._recorder, self._queues)
        return snapshot


class _Exposition:
    """A snapshot as a collector of ``prometheus_client``."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._rows: dict[str, list[tuple[tuple[str, ...], list[float]]]] = {}
        for (family, labels), numbers in sorted(snapshot.items()):
            self._rows.setdefault(family, []).append((labels, numbers))

    def collect(self) -> Iterator[Metric]:
        """The families that have figures."""
        from prometheus_client import metrics_core

        kinds: dict[str, Any] = {
            "counter": metrics_core.CounterMetricFamily,
            "gauge": metrics_core.GaugeMetricFamily,
            "histogram": metrics_core.HistogramMetricFamily,
        }
        for name, rows in self._rows.items():
            family = FAMILIES[name]
            metric = kinds[family.kind](name, family.help, labels=family.labels)
            for labels, numbers in rows:
                if family.kind == "histogram":
                    *counts, seconds = numbers
                    bounds = [*map(str, BUCKETS), "+Inf"]
                    metric.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), seconds)
                else:
                    metric.add_metric(labels, numbers[0])
            yield metric
