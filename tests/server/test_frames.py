"""WebSocket frames, and whose fault an error in them is."""

from __future__ import annotations

import h11
import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, TextMessage
from wsproto.frame_protocol import CloseReason

from trio_channels.server.frames import BINARY, TEXT, BoundedDeflate, MessageLimit, frame
from trio_channels.server.tasks import clients_doing


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frame_of_any_size_is_read_by_a_client(size: int) -> None:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(frame(TEXT, b"a" * size) + frame(BINARY, b"b" * size))
    text, data = client.events()
    assert isinstance(text, TextMessage)
    assert isinstance(data, BytesMessage)
    assert (text.data, data.data) == ("a" * size, b"b" * size)


def test_message_limit_is_not_negotiated() -> None:
    limit = MessageLimit(10)
    assert limit.enabled()
    assert limit.offer() is False


def test_compressed_data_before_any_frame_is_refused() -> None:
    deflate = BoundedDeflate(10)
    deflate._inbound_is_compressible = deflate._inbound_compressed = True
    assert deflate.frame_inbound_payload_data(None, b"x") is CloseReason.PROTOCOL_ERROR  # type: ignore[arg-type]


def test_group_is_the_clients_fault_if_all_of_it_is() -> None:
    theirs, ours = h11.RemoteProtocolError("no HTTP"), AttributeError("a mistake")
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [theirs])])
    assert clients_doing(nested) is theirs
    assert clients_doing(ExceptionGroup("both", [theirs, ours])) is None
