"""The communicator for one WebSocket."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .._asgi.protocol import ASGIApplication, Message
from .application import ApplicationCommunicator, expect, request_target


class WebsocketCommunicator(ApplicationCommunicator):
    """Runs a WebSocket application, and offers the calls of a client.

    Args:
        application: the ASGI application.
        path: the path and query, such as ``/ws/chat/?page=1``.
        headers: (name, value) pairs of bytes.
        subprotocols: the subprotocols that the client offers.
        spec_version: the value of ``scope["spec_version"]``, as in Channels.

    When the application closes, it gets a disconnect event, as from a server.

    Attributes:
        response_headers: the headers of the accepted handshake; None before.
    """

    def __init__(
        self,
        application: ASGIApplication,
        path: str,
        headers: Sequence[tuple[bytes, bytes]] = (),
        subprotocols: Sequence[str] = (),
        spec_version: str | None = None,
    ) -> None:
        if not isinstance(path, str):
            raise TypeError(f"path must be a str; got {type(path).__name__}")
        scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            **request_target(path),
            "root_path": "",
            "headers": list(headers or ()),
            "subprotocols": list(subprotocols or ()),
            "extensions": {"websocket.http.response": {}},
        }
        if spec_version:
            scope["spec_version"] = spec_version
        super().__init__(application, scope)
        self.response_headers: list[tuple[bytes, bytes]] | None = None
        self._disconnect_sent = False

    def _sent(self, message: Message) -> None:
        if message["type"] == "websocket.close":
            self._disconnected(message.get("code", 1000), message.get("reason") or "")
        elif message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self._disconnected(1006, "")

    def _disconnected(self, code: int, reason: str) -> None:
        if not self._disconnect_sent:
            self._disconnect_sent = True
            self._to_application.send_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    async def connect(self, timeout: float | None = None) -> tuple[bool, str | int | None]:
        """Open the WebSocket.

        Args:
            timeout: in seconds; :attr:`timeout` by default.

        Returns:
            (True, the chosen subprotocol or None) if the application accepts. Otherwise (False, the close code), or
            (False, the HTTP status) for a denial response.

        Raises:
            AssertionError: the application sent a message that answers no handshake.
            trio.TooSlowError, EOFError, Exception: as :meth:`receive_output`.

        Cancellation: ends only the wait.
        """
        await self.send_input({"type": "websocket.connect"})
        response = await self.receive_output(timeout)
        if response["type"] == "websocket.close":
            return False, response.get("code", 1000)
        if response["type"] == "websocket.http.response.start":
            return False, response["status"]
        expect(response, "websocket.accept")
        self.response_headers = list(response.get("headers") or ())
        return True, response.get("subprotocol")

    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send one message from the client, text or bytes.

        Raises:
            TypeError: both or none are given, or one has the wrong type.
            Exception: the application's exception, if it has ended with one.

        Cancellation: the message may not be sent.
        """
        if (text_data is None) == (bytes_data is None):
            given = "none" if text_data is None else "both"
            raise TypeError(f"send_to() takes exactly one of text_data and bytes_data; got {given}")
        if text_data is not None and not isinstance(text_data, str):
            raise TypeError(f"text_data must be a str; got {type(text_data).__name__}")
        if bytes_data is not None and not isinstance(bytes_data, bytes):
            raise TypeError(f"bytes_data must be bytes; got {type(bytes_data).__name__}")
        payload = {"text": text_data} if text_data is not None else {"bytes": bytes_data}
        await self.send_input({"type": "websocket.receive", **payload})

    async def send_json_to(self, data: Any) -> None:
        """Send an object as JSON from the client. Raises TypeError if JSON cannot represent it."""
        await self.send_to(text_data=json.dumps(data))

    async def receive_from(self, timeout: float | None = None) -> str | bytes:
        """Wait for one message to the client.

        Args:
            timeout: in seconds; :attr:`timeout` by default.

        Raises:
            AssertionError: the application sent no message, but closed, for example.
            trio.TooSlowError, EOFError, Exception: as :meth:`receive_output`.

        Cancellation: loses no message.
        """
        response = await self.receive_output(timeout)
        if response["type"] == "websocket.close" and response.get("code") == 1011:
            await self.wait(timeout)  # raises the exception behind the close
        expect(response, "websocket.send")
        text: str | None = response.get("text")
        return text if text is not None else bytes(response["bytes"])

    async def receive_json_from(self, timeout: float | None = None) -> Any:
        """Wait for one text message to the client, and decode it. Raises as :meth:`receive_from`."""
        payload = await self.receive_from(timeout)
        if not isinstance(payload, str):
            raise AssertionError(  # noqa: TRY004 - it is the application that is wrong
                f"expected JSON in a text message; got bytes {payload!r}. Use receive_from()"
            )
        return json.loads(payload)

    async def disconnect(self, code: int = 1000, timeout: float | None = None) -> None:
        """Disconnect the client, and wait for the application to end; see :meth:`wait`.

        Args:
            code: the close code.
            timeout: in seconds; :attr:`timeout` by default.
        """
        if not self._disconnect_sent:
            self._disconnect_sent = True
            await self.send_input({"type": "websocket.disconnect", "code": code, "reason": ""})
        await self.wait(timeout)
