"""A health check for load balancers and supervisors, as an ASGI application.

It answers without a thread, a database or a session, so that it still answers when one of those fails.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from typing import Any

from ._asgi.protocol import Receive, Scope, Send
from ._asgi.responses import deny_websocket, respond_plainly
from ._connection.registry import connections
from ._threads.pool import existing_pool
from .exceptions import ConfigurationError
from .layers import channel_layers
from .layers.base import ChannelLayer
from .server import statistics

__all__ = ["HealthApplication", "health"]

logger = logging.getLogger("trio_channels.health")

_METHODS = ("GET", "HEAD")


class HealthApplication:
    """Answers 200 if all channel layers work, and 503 if one does not or the server is ending; with statistics as JSON.

    Args:
        layers: alias -> channel layer; by default those of ``CHANNEL_LAYERS``.
        tolerate_outages: whether to answer 200 while a layer's backend is away.

    In the answer ``pool`` is null before the first use of the thread pool, ``connections`` counts the open scopes by
    type without the asking request, and ``server`` holds zeros if hypercorn is not hardened. Errors, which may name
    hosts and passwords, are not in it.
    """

    def __init__(self, layers: Mapping[str, ChannelLayer] | None = None, *, tolerate_outages: bool = False) -> None:
        self._layers = layers
        self._tolerant = tolerate_outages

    def __repr__(self) -> str:
        return f"<HealthApplication for {'CHANNEL_LAYERS' if self._layers is None else ', '.join(self._layers)}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Answer a request, or deny a WebSocket. Cancellation: the client may get none or a part of the answer."""
        if scope["type"] == "websocket":
            await deny_websocket(receive, send)
        elif scope["type"] != "http":
            raise ConfigurationError(f"a health application expects an 'http' scope; got {scope['type']!r}")
        elif scope["method"] not in _METHODS:
            await respond_plainly(send, 405, "Ask with GET or HEAD.", [(b"allow", ", ".join(_METHODS).encode())])
        else:
            await self._answer(send, with_body=scope["method"] == "GET")

    async def _answer(self, send: Send, *, with_body: bool) -> None:
        report = self.report()
        body = json.dumps(report).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        status = 200 if report["status"] == "ok" else 503
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body if with_body else b""})

    def report(self) -> dict[str, Any]:
        """The content of the answer."""
        aliases = channel_layers.configs if self._layers is None else self._layers
        layers = {alias: self._layer_report(alias) for alias in aliases}
        pool = existing_pool()
        server = statistics()
        return {
            "status": "ending" if server.ending else "ok" if all(map(self._is_well, layers.values())) else "unhealthy",
            "layers": layers,
            "pool": None if pool is None else _numbers(pool.statistics()),
            "connections": connections(),
            "server": _numbers(server),
        }

    def _is_well(self, layer: Mapping[str, Any]) -> bool:
        return layer["healthy"] and (self._tolerant or set(layer.get("shards", ())) <= {"working"})

    def _layer_report(self, alias: str) -> dict[str, Any]:
        try:
            layer = (channel_layers if self._layers is None else self._layers)[alias]
            report: dict[str, Any] = _numbers(layer.statistics())
            if hasattr(layer, "shard_statistics"):  # a layer with a backend, which may be away
                report["shards"] = [shard.state for shard in layer.shard_statistics()]
        except Exception as error:
            # The error may name hosts and passwords: it goes to the log only.
            logger.warning("the statistics of the channel layer %r are not available: %r", alias, error)
            return {"healthy": False}
        return report


def _numbers(statistics: Any) -> dict[str, float]:
    """The fields of a dataclass that are booleans and numbers."""
    fields = ((field.name, getattr(statistics, field.name)) for field in dataclasses.fields(statistics))
    return {name: value for name, value in fields if isinstance(value, int | float)}


#: The application for the layers of ``CHANNEL_LAYERS``.
health = HealthApplication()
