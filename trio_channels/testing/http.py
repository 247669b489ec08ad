"""The communicator for one HTTP request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._asgi.protocol import ASGIApplication
from .application import ApplicationCommunicator, expect, request_target


class HttpCommunicator(ApplicationCommunicator):
    """Runs an HTTP application for one request.

    Args:
        application: the ASGI application.
        method: the request's method, such as ``GET``.
        path: the path and query, such as ``/search/?q=trio``.
        body: the request's body.
        headers: (name, value) pairs of bytes.
    """

    def __init__(
        self,
        application: ASGIApplication,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        if not isinstance(body, bytes):
            raise TypeError(f"body must be bytes; got {type(body).__name__}")
        super().__init__(
            application,
            {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.4"},
                "http_version": "1.1",
                "method": method.upper(),
                "scheme": "http",
                **request_target(path),
                "root_path": "",
                "headers": list(headers or ()),
            },
        )
        self.body = body
        self._request_sent = False

    async def send_request(self) -> None:
        """Send the request. Further calls do nothing."""
        if not self._request_sent:
            self._request_sent = True
            await self.send_input({"type": "http.request", "body": self.body, "more_body": False})

    async def get_response(self, timeout: float | None = None) -> dict[str, Any]:
        """Send the request, and wait for the whole response.

        Args:
            timeout: in seconds, for each message of the response.

        Returns:
            A dict with ``status``, ``headers`` and ``body``.

        Raises:
            AssertionError: the application sent a message that is not the next part of a response.
            trio.TooSlowError, EOFError, Exception: as :meth:`receive_output`.

        Cancellation: the parts that were received are lost.
        """
        await self.send_request()
        start = await self.receive_output(timeout)
        expect(start, "http.response.start")
        body = bytearray()
        more = True
        while more:
            part = await self.receive_output(timeout)
            expect(part, "http.response.body")
            body += part.get("body", b"")
            more = part.get("more_body", False)
        await self.wait(timeout)
        return {"status": start["status"], "headers": list(start.get("headers", ())), "body": bytes(body)}

    async def disconnect(self, timeout: float | None = None) -> None:
        """Disconnect the client, and wait for the application to end; see :meth:`wait`."""
        await self.send_input({"type": "http.disconnect"})
        await self.wait(timeout)
