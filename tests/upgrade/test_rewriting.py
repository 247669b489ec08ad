"""Each construct that the upgrade rewrites, and each that it leaves to a person."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from trio_channels.upgrade.source import upgrade

pytestmark = pytest.mark.slow  # the syntax trees of libcst are made slowly


def _cases() -> dict[str, tuple[str, str]]:
    """The cases of the text file: source before and after; the same if there is no second part."""
    text = (Path(__file__).parent / "rewritten.txt").read_text()
    cases = {}
    for case in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]:
        title, _, body = case.partition("\n")
        before, _, after = body.partition("--- becomes\n")
        cases[title] = (before, after or before)
    return cases


REWRITTEN = _cases()


@pytest.mark.parametrize(("before", "after"), REWRITTEN.values(), ids=REWRITTEN)
def test_construct_is_rewritten(before: str, after: str) -> None:
    assert upgrade(before.encode()).source.decode() == after


@pytest.mark.parametrize(("before", "after"), REWRITTEN.values(), ids=REWRITTEN)
def test_second_time_changes_nothing(before: str, after: str) -> None:
    assert upgrade(after.encode()).source.decode() == after


def test_line_ends_and_encoding_stay() -> None:
    source = "# -*- coding: latin-1 -*-\r\nimport channels.db  # é\r\n"
    expected = source.replace("channels", "trio_channels")
    assert upgrade(source.encode("latin-1")).source == expected.encode("latin-1")


#: A line, and a part of the way that is named for it.
LEFT = {
    "asyncio.gather(*tasks)": "nursery",
    "x = await asyncio.gather(f(), g())": "nursery",
    "await asyncio.gather(f(), g(), return_exceptions=True)": "nursery",
    "await asyncio.wait_for(task, 5)": "fail_after",
    "await asyncio.wait_for(*arguments)": "fail_after",
    "await asyncio.wait_for(fut=f(), timeout=5)": "fail_after",
    "await asyncio.gather()": "nursery",
    "x = 1; await asyncio.gather(f())": "nursery",
    "asyncio.run(main(1), debug=True)": "Trio runs already",
    "asyncio.run(main(debug=True))": "Trio runs already",
    "async with asyncio.timeout(when=5): pass": "fail_after",
    "queue = asyncio.Queue(size)": "open_memory_channel",
    "queue = asyncio.Queue(1, loop=None)": "open_memory_channel",
    "queue = other = asyncio.Queue()": "open_memory_channel",
    "if await asyncio.wait_for(f(), 5): pass": "fail_after",
    "task = asyncio.create_task(f())": "start_soon",
    "loop = asyncio.get_event_loop()": "without a loop",
    "asyncio.new_event_loop()": "without a loop",
    "condition = asyncio.Condition()": "trio.Condition",
    "some = asyncio.Semaphore()": "trio.Semaphore",
    "await asyncio.open_connection('localhost', 1)": "trio.open_tcp_stream",
    "asyncio.iscoroutinefunction(f)": "inspect.iscoroutinefunction",
    "import aiohttp": "httpx",
    "import redis.asyncio": "redis.Redis",
    "from redis import asyncio as aioredis": "redis.Redis",
    "from asgiref.sync import ThreadSensitiveContext": "pinned",
    "from channels.utils import await_many_dispatch": "in a nursery",
    "from channels.utils.nothing import f": "in a nursery",
    "from channels.nothing import f": "Channels' names",
    "if 1: from channels.auth import login, database_sync_to_async": "import trio_channels.db.database_sync_to_async",
    "from channels.layers import nothing": "Channels' names",
    "from channels.db import DatabaseSyncToAsync": "is a function",
    "from channels.consumer import await_many_dispatch": "in a nursery",
    "from channels_redis.core import ChannelLock": "need no locks",
    "from channels_redis.pubsub import registry": "serializer_format",
    "await task.close_pools()": "remove the call",
    "from channels.db import SyncToAsync": "trio_channels.sync.sync_to_async",
    "from channels_redis.serializers import registry": "serializer_format",
    "import async_timeout": "fail_after",
    "async with asyncio.timeout(None): pass": "fail_after",
    "await asyncio.ensure_future(task)": "start_soon",
    "await asyncio.create_task(f(), name='f')": "start_soon",
    "loop = asyncio.get_event_loop(); loop.run_until_complete(f())": "without a loop",
    "asyncio.get_event_loop().run_until_complete(f(x=1))": "without a loop",
    "from unittest import IsolatedAsyncioTestCase": "SimpleTestCase",
    "import channels_presence": "presence",
    "from django.core.handlers.asgi import ASGIHandler": "get_asgi_application",
    "import uvicorn": "trio-channels serve",
}


@pytest.mark.parametrize(("line", "way"), LEFT.items())
def test_construct_is_left_to_a_person(line: str, way: str) -> None:
    first = "import asyncio" if "asyncio." in line and "import" not in line else "# channels"
    source = f"{first}\n\n\nasync def f(tasks, task):\n    {line}\n"
    upgraded = upgrade(source.encode())
    assert upgraded.source.decode() == source
    found = [decision for decision in upgraded.decisions if way in decision.way]
    assert [decision.line for decision in found] == [5]


def test_queue_that_is_used_in_another_way_is_left() -> None:
    source = dedent(
        """\
        import asyncio

        queue = asyncio.Queue()
        queue.put_nowait(1)
        print(queue.qsize())
        """
    )
    upgraded = upgrade(source.encode())
    assert upgraded.source.decode() == source
    assert [(decision.line, decision.name) for decision in upgraded.decisions] == [(3, "asyncio.Queue")]


@pytest.mark.parametrize("ending", ["pass", "stop = True"])
def test_cancellation_that_is_swallowed_is_named(ending: str) -> None:
    source = f"import asyncio\n\ntry:\n    g()\nexcept asyncio.CancelledError:\n    {ending}\n"
    upgraded = upgrade(source.encode())
    assert "except trio.Cancelled:" in upgraded.source.decode()
    assert [(decision.line, decision.name) for decision in upgraded.decisions] == [(5, "trio.Cancelled")]


def test_file_without_other_words_is_looked_at() -> None:
    for line in (b"from unittest import IsolatedAsyncioTestCase\n", b"import async_timeout\n"):
        assert len(upgrade(line).decisions) == 1


SWALLOWING = (
    "with pytest.raises(asyncio.CancelledError):\n    g()",
    "with contextlib.suppress(KeyError, asyncio.CancelledError):\n    g()",
    "with self.assertRaises(asyncio.CancelledError):\n    g()",
    "with pytest.raises((KeyError, asyncio.CancelledError)):\n    g()",
    "try:\n    g()\nexcept (KeyError, asyncio.CancelledError):\n    pass",
)


@pytest.mark.parametrize("block", SWALLOWING)
def test_block_that_swallows_a_cancellation_is_named(block: str) -> None:
    upgraded = upgrade(f"import asyncio\nimport contextlib\nimport pytest\n\n{block}\n".encode())
    assert [decision.name for decision in upgraded.decisions] == ["trio.Cancelled"]


def test_check_for_a_cancellation_needs_no_decision() -> None:
    assert not upgrade(b"import asyncio\n\nprint(isinstance(e, asyncio.CancelledError))\n").decisions


def test_cancellation_that_goes_on_needs_no_decision() -> None:
    source = b"import asyncio\n\ntry:\n    g()\nexcept asyncio.CancelledError:\n    raise\n"
    assert not upgrade(source).decisions


def test_event_that_is_cleared_is_named() -> None:
    upgraded = upgrade(b"import asyncio\n\nevent = asyncio.Event()\nevent.clear()\n")
    assert [(decision.line, decision.name) for decision in upgraded.decisions] == [(4, "event.clear")]


@pytest.mark.parametrize("name", ["event_loop", "event_loop_policy"])
def test_fixture_of_pytest_asyncio_is_named(name: str) -> None:
    source = f"import asyncio\n\nimport pytest\n\n\n@pytest.fixture\ndef {name}():\n    return None\n"
    found = upgrade(source.encode()).decisions
    assert [(decision.name, decision.way[:18]) for decision in found] == [(name, "remove the fixture")]
    assert not upgrade(source.replace("@pytest.fixture\n", "").encode()).decisions  # a function of that name


def test_task_outside_of_a_consumer_is_left() -> None:
    source = b"import asyncio\n\n\nclass A:\n    async def f(self):\n        asyncio.create_task(self.g())\n"
    upgraded = upgrade(source)
    assert upgraded.source == source
    assert [decision.name for decision in upgraded.decisions] == ["asyncio.create_task"]


def test_task_with_a_name_is_left() -> None:
    source = (
        b"import asyncio\n\nfrom trio_channels.consumer import AsyncConsumer\n\n\n"
        b"class A(AsyncConsumer):\n    async def f(self):\n        asyncio.create_task(self.g(), name='g')\n"
    )
    upgraded = upgrade(source)
    assert upgraded.source == source
    assert [decision.name for decision in upgraded.decisions] == ["asyncio.create_task"]
