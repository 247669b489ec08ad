"""hypercorn's access log, with the connection's number and the end of WebSockets; input escaped, secrets masked.

hypercorn's own log writes the client's path percent-decoded: a line break in it forges a line. It also copies the
process' environment for each request.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from hypercorn.config import Config
from hypercorn.logging import Logger

from .. import _conf
from .._asgi.masking import mask_query, mask_url
from ..log import number_of
from .error_log import open_error_log

#: The default format. The log handler adds the time.
FORMAT = '%(h)s "%(r)s" %(s)s %(b)s %(L)s #%(i)s'

_PHRASES = {str(status.value): status.phrase for status in HTTPStatus}


class ServerLog(Logger):
    """hypercorn's logger; writes access lines if `accesslog` is set or ``trio_channels.access`` has a level."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.access_log_format == Config.access_log_format:
            self.access_log_format = FORMAT
        ours = logging.getLogger("trio_channels.access")
        if isinstance(config.accesslog, str) and self.access_logger is not None:
            ours.handlers, ours.propagate = self.access_logger.handlers, False
            ours.setLevel(logging.INFO)
        if not isinstance(config.accesslog, logging.Logger):
            self.access_logger = ours if ours.level else None

    def atoms(self, request: Any, response: Any, request_time: float) -> Atoms:
        """The values for a format."""
        return Atoms(request, response, request_time)


def use_our_log(config: Config) -> None:
    """Set our logger class, unless the configuration has another one already, and open the error log."""
    if config.logger_class is Logger and config.statsd_host is None:
        config.logger_class = ServerLog
        config._log = None
    open_error_log(config)


class Atoms(dict[str, Any]):
    """The values for an access line: hypercorn's, and ``%(i)s``, the connection's number."""

    def __init__(self, scope: Any, response: Any, seconds: float) -> None:
        method = _safe(scope.get("method", "GET"))
        path, query = _safe(scope.get("path", "")), scope.get("query_string", b"").decode("latin-1")
        if query:
            query = _safe(mask_query(query, _conf.get("MASKED_PARAMETERS")))
        full = f"{path}?{query}" if query else path
        version = scope.get("http_version", "-")
        status = "-" if response is None else str(response["status"])
        client = scope.get("client")
        self._received = scope.get("headers", ())
        self._sent = () if response is None else response.get("headers", ())
        super().__init__(
            h=f"{client[0]}:{client[1]}" if client else "-",
            l="-",
            t=time.strftime("[%d/%b/%Y:%H:%M:%S %z]"),
            r=f"{method} {path} {version}",
            R=f"{method} {full} {version}",
            s=status,
            st=_PHRASES.get(status, "-"),
            S=scope.get("scheme", "-"),
            m=method,
            U=path,
            Uq=full,
            q=query,
            H=version,
            b=_header(self._sent, "content-length"),
            B=_header(self._sent, "content-length"),
            f=self["{referer}i"],
            a=_header(self._received, "user-agent"),
            T=int(seconds),
            D=int(seconds * 1_000_000),
            L=f"{seconds:.6f}",
            p=f"<{os.getpid()}>",
            i=number_of(scope) or "-",
        )

    # Headers and environment variables are looked up when a format names them.
    def __missing__(self, key: str) -> str:
        name, kind = key[1:-2].lower(), key[-2:]
        if not key.startswith("{"):
            return "-"
        if kind == "}e":
            return next((value for known, value in os.environ.items() if known.lower() == name), "-")
        value = _header(self._received if kind == "}i" else self._sent, name)
        return mask_url(value, _conf.get("MASKED_PARAMETERS")) if name in _WITH_URLS else value


#: Headers whose values are URLs.
_WITH_URLS = ("referer", "location", "content-location", "x-original-url", "x-rewrite-url", "x-forwarded-uri")


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: str) -> str:
    name = wanted.encode("latin-1", "replace")
    return next((_safe(value.decode("latin-1")) for known, value in headers if known.lower() == name), "-")


def _safe(text: str) -> str:
    """The text with control characters and quotation marks escaped."""
    shown = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
    return shown.replace('"', '\\"')
