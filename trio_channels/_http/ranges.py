"""Parts of files: the ``Range`` of a request (RFC 9110, section 14).

One range is answered with 206, one beyond the file with 416. Several ranges in one request are answered with the whole
file, as the RFC allows: no browser asks for them, and many small ones are an attack.
"""

from __future__ import annotations

import re
import time
from typing import Any, BinaryIO

from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import parse_http_date_safe

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]*)\s*-\s*([0-9]*)\s*", re.IGNORECASE | re.ASCII)

#: Digits of a position in a file; a number with more is beyond each file.
_MOST_DIGITS = 18


class FilePart:
    """A part of a file, to be read once."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        file.seek(start)
        self._file = file
        self._left = size

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; b"" at the end of the part."""
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def one_range(value: str, size: int) -> range | None:
    """The positions in a file of `size` bytes for which a ``Range`` asks; none if the file has none of them.

    Returns None if the header is to be ignored: it is invalid, has several ranges, or another unit.
    """
    match = _ONE_RANGE.fullmatch(value)
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, size - _number(last)), size) if last else None
    start, stop = _number(first), _number(last) + 1 if last else size
    if stop <= start and last:
        return None
    return range(start, min(stop, size))


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits[: _MOST_DIGITS + 1] or "0")


def with_range(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """The response with a file, or with the part of it for which the request asks."""
    if not isinstance(response, FileResponse) or response.status_code != 200:
        return response
    response["Accept-Ranges"] = "bytes"
    wanted = request.headers.get("Range")
    # A range means something for GET alone.
    if wanted is None or request.method != "GET" or not _is_unchanged(request, response):
        return response
    size = int(response["Content-Length"])
    positions = one_range(wanted, size)
    if positions is None:
        return response
    if not positions:
        response.close()
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"})
    _cut(response, positions)
    response.status_code = 206
    response["Content-Length"] = str(len(positions))
    response["Content-Range"] = f"bytes {positions[0]}-{positions[-1]}/{size}"
    return response


def _cut(response: FileResponse, positions: range) -> None:
    file: Any = response.file_to_stream
    response._resource_closers.remove(file.close)  # type: ignore[attr-defined]  # the part closes it
    response.streaming_content = FilePart(file, positions.start, len(positions))  # type: ignore[assignment]


def _is_unchanged(request: HttpRequest, response: HttpResponseBase) -> bool:
    """Whether ``If-Range`` holds. The files have no ETag, and a date that is too new may be that of two versions."""
    condition = request.headers.get("If-Range")
    if condition is None:
        return True
    modified = parse_http_date_safe(response["Last-Modified"])
    return parse_http_date_safe(condition) == modified is not None and time.time() - modified >= 1
