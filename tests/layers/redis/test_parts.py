"""The small parts: the duplicate filter, shards and slots, error replies, commands and batches."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_channels.layers.redis.batch import NOT_CARRIED_OUT, Batch, Call, is_elsewhere_or_later
from trio_channels.layers.redis.connection import encode, open_connection
from trio_channels.layers.redis.delivery import MEMORY, WIDTH, DuplicateFilter
from trio_channels.layers.redis.hosts import Host, parse_host
from trio_channels.layers.redis.pipeline import IN_FLIGHT
from trio_channels.layers.redis.topology import SLOTS, Cluster, Hosts, key_slot, shard_of

from ...redis_server import RedisServer

# -- duplicates -------------------------------------------------------------------------------------------------------


def test_token_is_a_duplicate_from_the_second_time_on() -> None:
    seen = DuplicateFilter()
    assert [seen.is_duplicate(b"a-1", 0) for _ in range(3)] == [False, True, True]
    assert seen.suppressed == 2


def test_senders_are_told_apart() -> None:
    seen = DuplicateFilter()
    assert not any(seen.is_duplicate(token, 0) for token in (b"a-1", b"b-1", b"a-b-1", b"", b"1", b"-1x"))


def test_everything_that_a_link_has_under_way_may_come_again() -> None:
    seen = DuplicateFilter()
    tokens = [b"a-%d" % number for number in range(IN_FLIGHT)]
    assert not any(seen.is_duplicate(token, 0) for token in tokens)
    assert all(seen.is_duplicate(token, 0) for token in tokens)


@given(st.permutations(range(20)))
def test_order_of_numbers_does_not_matter(numbers: list[int]) -> None:
    seen = DuplicateFilter()
    assert not any(seen.is_duplicate(b"a-%d" % number, 0) for number in numbers)
    assert all(seen.is_duplicate(b"a-%d" % number, 0) for number in reversed(numbers))


def test_sender_costs_no_more_than_its_window() -> None:
    seen = DuplicateFilter()
    for number in range(3 * WIDTH):
        assert not seen.is_duplicate(b"a-%d" % number, 0)
    window = seen._senders[b"a"]
    assert len(window.seen) == len(window.order) == WIDTH


def test_silent_senders_are_forgotten_and_others_are_not() -> None:
    seen = DuplicateFilter()
    seen.is_duplicate(b"silent-1", 0)
    seen.is_duplicate(b"lively-1", 0)
    seen.is_duplicate(b"lively-2", MEMORY)
    seen.is_duplicate(b"new-1", MEMORY + 1)
    assert list(seen._senders) == [b"lively", b"new"]
    assert seen.is_duplicate(b"lively-1", MEMORY + 1)


# -- shards and slots -------------------------------------------------------------------------------------------------


@given(st.text(), st.integers(1, 64))
def test_every_name_has_a_shard(name: str, shards: int) -> None:
    assert 0 <= shard_of(name, shards) < shards


def test_shard_of_a_name_never_changes_between_releases() -> None:
    assert shard_of("123456789", 2**32) == 0xCBF43926  # the check value of CRC-32
    assert [shard_of(name, 4) for name in ("", "room", "123456789")] == [0, 3, 2]


def test_names_spread_over_the_shards() -> None:
    counts = [0] * 4
    for number in range(4000):
        counts[shard_of(f"room-{number}", 4)] += 1
    assert min(counts) > 800


def test_topology_shows_its_hosts_and_no_password() -> None:
    hosts = [parse_host("redis://:hunter2@one"), parse_host("redis://:hunter2@two:1")]
    sentinel = parse_host({"sentinels": ["s"], "master_name": "m", "password": "hunter2"})
    assert repr(Hosts([*hosts, sentinel])) == "<Hosts one:6379, two:1, sentinel master 'm'>"
    assert repr(Cluster(hosts, "asgi", 4)) == "<Cluster of 4 shards, through one:6379, two:1>"


async def test_slot_is_the_one_that_redis_says(redis_server: RedisServer) -> None:
    tags = ["", "a", "asgi:0", "asgi:1", "\u00e4", "x" * 1000, "123456789"]
    with RunningCluster() as port:
        connection = await open_connection(Host(("127.0.0.1", port)))
        try:
            replies = await connection.exchange(*(("CLUSTER", "KEYSLOT", tag) for tag in tags))
        finally:
            await connection.aclose()
    assert [key_slot(tag) for tag in tags] == replies
    assert key_slot("123456789") == 0x31C3 % SLOTS


class RunningCluster:
    """A Redis with cluster support; it owns no slot."""

    def __enter__(self) -> int:
        self._server = RedisServer("--cluster-enabled", "yes")
        self._server.start()
        return self._server.port

    def __exit__(self, *_exc: object) -> None:
        self._server.close()


# -- error replies, commands and batches ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "again"),
    [
        ("MOVED 3999 127.0.0.1:6381", True),
        ("ASK 3999 127.0.0.1:6381", True),
        ("TRYAGAIN Multiple keys request during rehashing of slot", True),
        ("CLUSTERDOWN The cluster is down", True),
        ("LOADING Redis is loading the dataset in memory", True),
        ("READONLY You can't write against a read only replica. script: abc, on @user_script:1.", True),
        ("NOSCRIPT No matching script. Please use EVAL.", True),
        ("BUSY Redis is busy running a script.", True),
        ("ERR Script attempted to access a non local key in a cluster node script: abc", True),
        ("ERR Script attempted to execute a write command while the cluster is down and readonly", True),
        ("NOREPLICAS Not enough good replicas to write.", True),
        ("ERR Error running script (call to f_1): @user_script:2: -READONLY You can't write", True),
        ("ERR Error running script (call to f_1): @user_script:2: WRONGTYPE Operation", False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("OOM command not allowed when used memory > 'maxmemory'.", False),
        ("BUSYGROUP Consumer Group name already exists", False),
        ("NOPERM this user has no permissions", False),
        ("ERR unknown command", False),
    ],
)
def test_error_asks_for_another_try_or_for_another_command(reply: str, again: bool) -> None:
    assert is_elsewhere_or_later(hiredis.ReplyError(reply)) is again


@given(st.lists(st.binary() | st.text(st.characters(exclude_categories=["Cs"])) | st.integers(), min_size=1))
def test_command_is_what_a_resp_parser_reads(arguments: list[bytes | str | int]) -> None:
    parser = hiredis.Reader()
    parser.feed(encode(*arguments))
    assert parser.gets() == [item if isinstance(item, bytes) else str(item).encode() for item in arguments]


async def test_repr_of_a_batch_counts_calls_and_commands() -> None:
    def combine(parts: list[bytes]) -> tuple[bytes, ...]:
        return (b"SADD", b"key", *parts)

    batch = Batch([Call(part, 1, combine, 0.0) for part in (b"a", b"b")] + [Call(encode("PING"), 14, None, 0.0)])
    assert repr(batch) == "<Batch of 3 calls in 2 commands>"
    assert batch.data == encode("MULTI") + encode("SADD", "key", "a", "b") + encode("PING") + encode("EXEC")
    assert batch.replies == 4


PING, PAIR = encode("PING"), (encode("GET", "a"), encode("GET", "b"))
ABORTED, REFUSED = hiredis.ReplyError("EXECABORT Transaction discarded"), hiredis.ReplyError("NOPERM no")


@pytest.mark.parametrize(
    ("replies", "answers"),
    [
        ([b"QUEUED", b"QUEUED", b"QUEUED", [b"PONG", 1, 2]], [b"PONG", (1, 2)]),
        ([b"QUEUED", b"QUEUED", b"QUEUED", [b"PONG", REFUSED, 2]], [b"PONG", REFUSED]),
        ([b"QUEUED", b"QUEUED", b"QUEUED", [b"PONG", 1, REFUSED]], [b"PONG", REFUSED]),
        ([b"QUEUED", b"QUEUED", REFUSED, ABORTED], [NOT_CARRIED_OUT, REFUSED]),
        ([b"QUEUED", REFUSED, b"QUEUED", ABORTED], [NOT_CARRIED_OUT, REFUSED]),
        ([REFUSED, b"QUEUED", b"QUEUED", ABORTED], [REFUSED, NOT_CARRIED_OUT]),
    ],
)
async def test_call_of_two_commands_has_one_answer(replies: list[Any], answers: list[Any]) -> None:
    batch = Batch([Call(PING, 14, None, 0.0), Call(PAIR, 40, None, 0.0)])
    assert repr(batch) == "<Batch of 2 calls in 3 commands>"
    assert batch.answers([b"OK", *replies]) == answers


async def test_two_commands_of_a_call_are_a_transaction() -> None:
    assert Batch([Call(PAIR, 40, None, 0.0)]).data == b"".join([encode("MULTI"), *PAIR, encode("EXEC")])
