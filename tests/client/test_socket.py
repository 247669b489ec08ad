"""A socket's connections: how they begin, how they end, and when there is another one."""

from __future__ import annotations

import logging
import ssl
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio_websocket
import trustme

from trio_channels.client import ClientSocket, connect
from trio_channels.client.transport import LONGEST_HANDSHAKE, Connection, Lost
from trio_channels.exceptions import (
    CannotConnect,
    MessageNotEncodable,
    ReplyTimeout,
    SocketEnded,
    TopicClientError,
    TopicEnded,
)

from ..ports import free_port
from .scripted import A, Scripted, connected, connecting, scripted, wait_until


async def serve_raw(nursery: trio.Nursery, handle: Any) -> str:
    listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
    return f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"


async def cannot_connect(address: str, **options: Any) -> CannotConnect:
    with pytest.raises(CannotConnect) as failed, trio.fail_after(20):
        async with connect(address, **options):
            pass
    return failed.value


async def test_nobody_listens() -> None:
    error = await cannot_connect(f"ws://127.0.0.1:{free_port()}/")
    assert "cannot be reached" in str(error)


async def test_host_without_an_address() -> None:
    assert "cannot be reached" in str(await cannot_connect("ws://nobody.invalid/"))


async def test_server_that_never_answers_is_given_up() -> None:
    async with trio.open_nursery() as nursery:

        async def handle(stream: trio.SocketStream) -> None:
            await trio.sleep_forever()

        address = await serve_raw(nursery, handle)
        assert "within 0.05 seconds" in str(await cannot_connect(address, timeout=0.05))
        nursery.cancel_scope.cancel()


async def test_server_that_never_answers_for_tls_is_given_up() -> None:
    async with trio.open_nursery() as nursery:

        async def handle(stream: trio.SocketStream) -> None:
            await trio.sleep_forever()

        address = (await serve_raw(nursery, handle)).replace("ws://", "wss://")
        assert "could not be reached within 0.05 seconds" in str(await cannot_connect(address, timeout=0.05))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 X\r\nupgrade: \xff\xff\r\n\r\n",
    ],
)
async def test_server_that_dies_in_the_handshake_is_noticed(answer: bytes) -> None:
    async with trio.open_nursery() as nursery:

        async def handle(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            await stream.send_all(answer)
            await stream.aclose()

        address = await serve_raw(nursery, handle)
        assert "ended the connection during the handshake" in str(await cannot_connect(address, timeout=1_000))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\r\nx: "])
async def test_denial_without_an_end_is_not_read_on(end: bytes) -> None:
    async with trio.open_nursery() as nursery:

        async def handle(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            with suppress(trio.BrokenResourceError):
                await stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 999999999999" + end)
                for _ in range(4 * LONGEST_HANDSHAKE // 2**16):
                    await stream.send_all(b"x" * 2**16)
                await trio.sleep_forever()

        address = await serve_raw(nursery, handle)
        assert "during the handshake" in str(await cannot_connect(address, timeout=1_000))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("body", [b"", b"no"])
async def test_denied_handshake_tells_its_status(body: bytes) -> None:
    async with scripted() as server:

        async def handle(request: Any) -> None:
            await request.reject(403, body=body or None)

        server.handle = handle  # type: ignore[method-assign]
        error = await cannot_connect(server.address)
        assert (error.status, "403" in str(error)) == (403, True)


async def test_cannot_connect_hides_the_query() -> None:
    error = await cannot_connect(f"ws://127.0.0.1:{free_port()}/?key=secret", params={"token": "secret"})
    assert "secret" not in str(error)


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls_is_checked(trusted: bool) -> None:
    authority = trustme.CA()
    server_context, client_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server_context)
    if trusted:
        authority.configure_trust(client_context)
    async with trio.open_nursery() as nursery:
        server = Scripted()

        async def serve(task_status: Any) -> None:
            await trio_websocket.serve_websocket(server.handle, "127.0.0.1", 0, server_context, task_status=task_status)

        port = (await nursery.start(serve)).port
        if trusted:
            async with connect(f"wss://localhost:{port}/", ssl_context=client_context) as socket:
                assert socket.statistics().connected
        else:
            error = await cannot_connect(f"wss://localhost:{port}/", ssl_context=client_context)
            assert "certificate verify failed" in str(error)
        nursery.cancel_scope.cancel()


async def test_end_of_the_block_closes_in_order() -> None:
    async with scripted() as server:
        async with connecting(server) as socket:
            peer = await server.peer()
            assert "connected" in repr(socket)
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await peer.receive()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1000
        assert "ended" in repr(socket)
        with pytest.raises(SocketEnded):
            async with socket.join(A):
                pass


async def test_server_that_does_not_close_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_channels.client.transport.CLOSING", 0.01)
    async with scripted() as server:

        async def handle(request: trio_websocket.WebSocketRequest) -> None:
            connection = await request.accept()
            connection._handle_close_connection_event = trio.sleep_forever  # type: ignore[method-assign,assignment]
            await trio.sleep_forever()

        server.handle = handle  # type: ignore[method-assign]
        async with connecting(server) as socket:
            pass
        assert not socket.statistics().connected


async def test_end_of_the_block_does_not_wait_for_a_server_that_is_away() -> None:
    async with scripted() as server, connecting(server, back_off=lambda attempt, code: 1_000.0) as socket:
        await (await server.peer()).cut()
        await wait_until(lambda: not socket.statistics().connected)


async def test_end_of_the_block_in_the_moment_of_a_loss_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def receive(self: Connection) -> str | bytes:
        try:
            return await self._websocket.get_message()
        except trio.Cancelled:
            raise Lost(1006, "") from None

    monkeypatch.setattr(Connection, "receive", receive)
    async with connected() as (_, _, socket):
        pass
    assert socket.statistics().connections == 1


@pytest.mark.parametrize("error", [KeyError("the block's"), TopicEnded("of another"), BaseException("an interrupt")])
async def test_error_of_the_block_is_raised_as_it_is(error: BaseException) -> None:
    async with scripted() as server:
        raised = None
        try:
            async with connecting(server):
                try:
                    raise ValueError
                except ValueError:
                    raise error from None
        except BaseException as caught:
            raised = caught
        assert raised is error
        assert isinstance(error.__context__, ValueError)
        assert error.__suppress_context__


async def test_errors_of_several_tasks_stay_a_group() -> None:
    async with scripted() as server:
        with pytest.raises(ExceptionGroup) as raised:
            async with connecting(server):
                raise ExceptionGroup("several", [KeyError(1), KeyError(2)])
        assert raised.group_contains(KeyError)


async def stays(socket: ClientSocket) -> None:
    try:
        async with socket.join(A):
            await trio.sleep_forever()
    except SocketEnded:
        pass


async def reads(socket: ClientSocket, errors: list[SocketEnded]) -> None:
    try:
        async with socket.join(A) as room:
            async for _ in room:
                pass
    except SocketEnded as error:
        errors.append(error)


async def test_connection_is_followed_by_another(caplog: pytest.LogCaptureFixture) -> None:
    async with connected() as (server, peer, socket):
        for number in range(2, 5):
            await peer.close(1012, "restart")
            peer = await server.peer()
            await wait_until(lambda number=number: socket.statistics().connections == number)
        (first, *_) = caplog.records
        assert (first.levelno, first.name) == (logging.WARNING, "trio_channels.client")
        assert first.getMessage().endswith("code 1012, restart; trying again in 0.005 seconds")


async def test_delays_grow_until_a_connection_is_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[tuple[int, int | None]] = []

    def back_off(attempt: int, code: int | None) -> float:
        attempts.append((attempt, code))
        return 0.0

    async with connected(back_off=back_off) as (server, peer, _):
        await peer.close(1013)
        await (await server.peer()).cut()
        peer = await server.peer()
        monkeypatch.setattr("trio_channels.client.socket.STABLE", 0.0)
        await peer.close(1001)
        await server.peer()
    assert attempts == [(1, 1013), (2, 1006), (1, 1001)]


async def test_attempts_that_take_long_are_no_stable_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[int] = []
    done = trio.Event()

    def back_off(attempt: int, code: int | None) -> float:
        attempts.append(attempt)
        if len(attempts) == 3:
            done.set()
        return 0.0

    async with connected(back_off=back_off) as (server, peer, _):
        monkeypatch.setattr("trio_channels.client.socket.STABLE", 0.0)
        await refusing(server, 503, 503, 503)
        await peer.cut()
        await done.wait()
    assert attempts[:3] == [1, 2, 3]


async def test_server_that_is_away_is_tried_again() -> None:
    async with connected() as (server, peer, socket):
        port = server.port
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stays, socket)
            await peer.accept_join()
            await peer.cut()
            peer = await server.peer()
            assert (await peer.accept_join())[2] == A
            nursery.cancel_scope.cancel()
        assert port == server.port


async def refusing(server: Scripted, *statuses: int) -> None:
    """Deny the next connections."""
    answers, accept = list(statuses), server.handle

    async def handle(request: Any) -> None:
        if answers:
            await request.reject(answers.pop(0))
        else:
            await accept(request)

    server.handle = handle  # type: ignore[method-assign]


@pytest.mark.parametrize("status", [403, 404])
async def test_denied_reconnect_ends_the_socket(status: int) -> None:
    async with connected() as (server, peer, socket), trio.open_nursery() as nursery:
        errors: list[SocketEnded] = []
        nursery.start_soon(reads, socket, errors)
        await peer.accept_join()
        await refusing(server, 503, 429, status)
        await peer.cut()
        await wait_until(lambda: bool(errors))
        assert (errors[0].code, str(status) in str(errors[0])) == (None, True)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("no frame", "does not speak the Phoenix Channels protocol 2"),
        (b"\x07", "does not speak the Phoenix Channels protocol 2"),
        ("x" * 1_001, "too large"),
        ('[null,null,"room:a","presence_state",[]]', "presence"),
        ('[null,null,"room:a","presence_state",{"ada":{"metas":[1]}}]', "presence"),
        ('[null,null,"room:a","presence_diff",[]]', "presence"),
        ('[null,null,"room:a","presence_diff",{"joins":[]}]', "presence"),
    ],
)
async def test_server_that_speaks_another_protocol_ends_the_socket(message: Any, text: str) -> None:
    async with connected(max_message_size=1_000) as (_, peer, socket), trio.open_nursery() as nursery:
        errors: list[SocketEnded] = []
        nursery.start_soon(reads, socket, errors)
        await peer.accept_join()
        await peer.send_raw(message)
        await wait_until(lambda: bool(errors))
        assert text in str(errors[0])
        assert errors[0].code in (1002, 1009)


async def test_unanswered_heartbeat_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(heartbeat=0.02) as (server, peer, socket):
        first = await peer.receive()
        assert first == [None, first[1], "phoenix", "heartbeat", {}]
        await peer.reply(first)
        await peer.receive()
        await server.peer()
        assert socket.statistics().heartbeats == 1
    assert "has not answered a heartbeat" in caplog.text


async def test_topic_is_joined_once_at_a_time() -> None:
    async with connected() as (_, peer, socket), trio.open_nursery() as nursery:
        nursery.start_soon(stays, socket)
        await peer.accept_join()
        with pytest.raises(TopicClientError, match="has joined 'room:a' already"):
            async with socket.join(A):
                pass
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", ["", "é" * 128, None])
async def test_topic_name_that_cannot_be_sent_is_refused(name: Any) -> None:
    async with connected() as (_, _, socket):
        with pytest.raises(MessageNotEncodable):
            async with socket.join(name):
                pass


async def test_join_without_an_answer_times_out_and_is_left() -> None:
    async with connected() as (_, peer, socket):
        with pytest.raises(ReplyTimeout, match="join of 'room:a'"):
            async with socket.join(A, timeout=0.01):
                pass
        join, leave = await peer.receive(), await peer.receive()
        assert (leave[0], leave[3]) == (join[0], "phx_leave")
        assert socket.statistics().topics == 0


async def test_first_join_goes_on_after_an_outage() -> None:
    async with connected() as (server, peer, socket), trio.open_nursery() as nursery:
        nursery.start_soon(stays, socket)
        await peer.receive()
        await peer.cut()
        peer = await server.peer()
        await peer.accept_join()
        nursery.cancel_scope.cancel()


async def leave_in_background(socket: ClientSocket, left: trio.Event) -> None:
    async with socket.join(A):
        pass
    left.set()


@pytest.mark.parametrize("end", ["reply", "cut", "close", "nothing"])
async def test_leave_ends_with_the_answer_or_without(end: str) -> None:
    left = trio.Event()
    async with (
        connected(timeout=0.2 if end == "nothing" else 30.0) as (_, peer, socket),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(leave_in_background, socket, left)
        await peer.accept_join()
        if end == "reply":
            await peer.accept_leave()
        else:
            leave = await peer.receive()
            if end == "cut":
                await peer.cut()
            if end == "close":
                await peer.send(leave[0], leave[0], A, "phx_close", {})
        await left.wait()
        assert socket.statistics().topics == 0


async def test_leave_while_away_does_not_wait() -> None:
    over = trio.Event()

    async def stay(socket: ClientSocket) -> None:
        async with socket.join(A):
            await over.wait()

    async with (
        connected(back_off=lambda attempt, code: 1_000.0, timeout=1_000.0) as (_, peer, socket),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(stay, socket)
        await peer.accept_join()
        await peer.cut()
        await wait_until(lambda: not socket.statistics().connected)
        over.set()


async def test_topic_can_be_joined_again_after_a_leave() -> None:
    async with connected() as (_, peer, socket):
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave_in_background, socket, trio.Event())
                await peer.accept_join()
                await peer.accept_leave()
