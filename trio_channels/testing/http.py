"""The communicator for one HTTP request."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import trio

from .._asgi.protocol import ASGIApplication, Message
from .application import ApplicationCommunicator, expect, request_target
from .events import EventParser, ServerSentEvent


class HttpCommunicator(ApplicationCommunicator):
    """Runs an HTTP application for one request.

    Args:
        application: the ASGI application.
        method: the request's method, such as ``GET``.
        path: the path and query, such as ``/search/?q=trio``.
        body: the request's body.
        headers: (name, value) pairs of bytes.

    When request and response are complete, the application gets a disconnect event, as from a server. The end of an
    ``async with`` block then gives it :attr:`timeout` seconds to end by itself, before it is cancelled.

    Read an endless response part by part: :meth:`get_response_start`, then :meth:`receive_body` or
    :meth:`receive_event`; :meth:`disconnect` ends it.
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
        self._body_sent = False  # the last part of the request
        self._response_sent = False  # by the application
        self._disconnect_sent = False
        self._start_of_response: dict[str, Any] | None = None
        self._complete = False  # the last part of the body has been received
        self._parser = EventParser()
        self._events: deque[ServerSentEvent] = deque()

    def _sent(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._response_sent = True
            self._disconnect_if_done()

    def _disconnect_if_done(self) -> None:
        if self._body_sent and self._response_sent:
            self._disconnected()

    def _disconnected(self) -> None:
        if not self._disconnect_sent:
            self._disconnect_sent = True
            self._to_application.send_nowait({"type": "http.disconnect"})

    async def _before_cancel(self) -> None:
        if self._response_sent:
            with trio.move_on_after(self.timeout):
                await self._ended.wait()

    async def send_input(self, message: Message) -> None:
        """As :meth:`ApplicationCommunicator.send_input`."""
        await super().send_input(message)
        if message["type"] == "http.request" and not message.get("more_body"):
            self._body_sent = True
            self._disconnect_if_done()

    async def send_request(self) -> None:
        """Send the request. Further calls do nothing."""
        if not self._request_sent:
            self._request_sent = True
            await self.send_input({"type": "http.request", "body": self.body, "more_body": False})

    async def get_response(self, timeout: float | None = None) -> dict[str, Any]:
        """Send the request, and wait for the whole response. The application may still run afterwards.

        Args:
            timeout: in seconds, for each message of the response.

        Returns:
            A dict with ``status``, ``headers`` and ``body``, which has the parts that were not received before.

        Raises:
            AssertionError: the application sent a message that is not the next part of a response.
            trio.TooSlowError, EOFError, Exception: as :meth:`receive_output`.

        Cancellation: the parts that were received are lost.
        """
        start = await self.get_response_start(timeout)
        body = bytearray()
        while not self._complete:
            body += await self.receive_body(timeout)
        return {**start, "body": bytes(body)}

    async def get_response_start(self, timeout: float | None = None) -> dict[str, Any]:
        """Send the request, and wait for the start of the response; further calls return the same.

        Args:
            timeout: in seconds; :attr:`timeout` by default.

        Returns:
            A dict with ``status`` and ``headers``.

        Raises:
            AssertionError: the application sent another message.
            trio.TooSlowError, EOFError, Exception: as :meth:`receive_output`.

        Cancellation: ends only the wait.
        """
        await self.send_request()
        if self._start_of_response is None:
            start = await self.receive_output(timeout)
            expect(start, "http.response.start")
            self._start_of_response = {"status": start["status"], "headers": list(start.get("headers", ()))}
        return dict(self._start_of_response)

    async def receive_body(self, timeout: float | None = None) -> bytes:
        """Wait for the next part of the response's body.

        Args:
            timeout: in seconds; :attr:`timeout` by default.

        Raises:
            AssertionError: the application sent another message.
            EOFError: the body is complete, or the application has ended.
            trio.TooSlowError, Exception: as :meth:`receive_output`.

        Cancellation: loses no part.
        """
        await self.get_response_start(timeout)
        if self._complete:
            raise EOFError("expected a part of the body; the response is complete")
        part = await self.receive_output(timeout)
        expect(part, "http.response.body")
        self._complete = not part.get("more_body", False)
        return bytes(part.get("body", b""))

    async def receive_event(self, timeout: float | None = None) -> ServerSentEvent:
        """Wait for the next server-sent event. Comments, which keep connections alive, are skipped.

        Args:
            timeout: in seconds, for the whole event; :attr:`timeout` by default.

        Raises:
            AssertionError: the response is not of the type ``text/event-stream``.
            EOFError, trio.TooSlowError, Exception: as :meth:`receive_body`.

        Cancellation: loses no event.
        """
        deadline = trio.current_time() + (self.timeout if timeout is None else timeout)
        start = await self.get_response_start(timeout)
        types = [value for name, value in start["headers"] if name.lower() == b"content-type"]
        if not types or types[0].partition(b";")[0].strip().lower() != b"text/event-stream":
            raise AssertionError(f"expected a response of the type text/event-stream; got {start!r}")
        while not self._events:
            self._events.extend(self._parser.feed(await self.receive_body(max(0, deadline - trio.current_time()))))
        return self._events.popleft()

    async def disconnect(self, timeout: float | None = None) -> None:
        """Disconnect the client, and wait for the application to end; see :meth:`wait`."""
        self._start()
        self._raise_failure()
        self._disconnected()
        await self.wait(timeout)
