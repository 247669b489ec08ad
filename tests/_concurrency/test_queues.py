"""Events between the task that reads a connection and those that use it."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from trio_channels._asgi.protocol import Message
from trio_channels._concurrency.queues import EventQueue, Inbox
from trio_channels._concurrency.wakeup import Wakeup


def text(number: int) -> Message:
    return {"type": "websocket.receive", "text": str(number)}


def queue_of(capacity: int, *events: Message) -> EventQueue:
    queue = EventQueue(capacity, Wakeup())
    for event in events:
        queue.add(event)
    return queue


async def test_events_are_taken_in_order_and_then_there_is_none() -> None:
    queue = queue_of(2)
    await queue.put(text(1))
    await queue.put(text(2))
    assert [queue.take(), queue.take(), queue.take()] == [text(1), text(2), None]


async def test_every_event_sets_the_wakeup() -> None:
    wakeup = Wakeup()
    queue = EventQueue(1, wakeup)
    with trio.fail_after(10):
        await queue.put(text(1))
        await wakeup.wait()
        queue.add(text(2))
        await wakeup.wait()


async def test_reader_waits_until_there_is_room(nursery: trio.Nursery) -> None:
    queue = queue_of(1, text(1))
    nursery.start_soon(queue.put, text(2))
    await wait_all_tasks_blocked()
    assert len(queue) == 1
    assert queue.take() == text(1)
    await wait_all_tasks_blocked()
    assert queue.take() == text(2)


async def test_room_is_for_one_event_each(nursery: trio.Nursery) -> None:
    queue = queue_of(1, text(1), text(2))  # the second was added beyond the capacity
    nursery.start_soon(queue.put, text(3))
    queue.take()
    await wait_all_tasks_blocked()
    assert len(queue) == 1
    queue.take()
    await wait_all_tasks_blocked()
    assert queue.take() == text(3)


async def test_cancelled_waiting_reader_leaves_the_queue_as_it_was() -> None:
    queue = queue_of(1, text(1))
    with trio.move_on_after(0) as scope:
        await queue.put(text(2))
    assert scope.cancelled_caught
    assert [queue.take(), queue.take()] == [text(1), None]
    await queue.put(text(3))
    assert queue.take() == text(3)


async def test_where_there_is_room_an_event_is_put_without_a_checkpoint() -> None:
    queue = queue_of(1)
    with trio.move_on_after(0) as scope:
        await queue.put(text(1))
    assert not scope.cancelled_caught
    assert queue.take() == text(1)


async def test_closing_drops_what_waits_and_frees_the_reader(nursery: trio.Nursery) -> None:
    queue = queue_of(1, text(1))
    nursery.start_soon(queue.put, text(2))
    await wait_all_tasks_blocked()
    queue.close()
    await wait_all_tasks_blocked()
    assert not nursery.child_tasks
    await queue.put(text(3))
    await queue.put(text(4))
    assert queue.take() is None


def test_handshake_need_not_be_taken() -> None:
    connect: Message = {"type": "websocket.connect"}
    assert not queue_of(4).unread
    assert not queue_of(4, connect).unread
    assert queue_of(4, connect, text(1)).unread


async def test_handled_events_are_waited_for_one_by_one(nursery: trio.Nursery) -> None:
    queue = queue_of(2)
    queue.dealt_with()
    with trio.fail_after(10):
        await queue.until_dealt_with()
    nursery.start_soon(queue.until_dealt_with)
    await wait_all_tasks_blocked()
    assert nursery.child_tasks
    queue.dealt_with()
    await wait_all_tasks_blocked()
    assert not nursery.child_tasks


def test_its_repr_tells_the_state() -> None:
    queue = queue_of(2, text(1))
    assert repr(queue) == "<EventQueue 1 of 2>"
    queue.close()
    assert repr(queue) == "<EventQueue 0 of 2, closed>"


async def test_attached_inbox_wakes_a_waiting_writer() -> None:
    inbox, queue = Inbox(1), EventQueue(2, Wakeup())
    first, second = {"type": "first"}, {"type": "second"}
    await inbox(first)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox, second)
        await wait_all_tasks_blocked()
        inbox.attach(queue, lambda _event: None)
    assert [queue.take(), queue.take()] == [first, second]
