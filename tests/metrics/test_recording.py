"""The figures of connections, one by one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from trio_channels._concurrency.wakeup import Wakeup
from trio_channels._metrics import recording
from trio_channels._metrics.recording import BUCKETS, LAG_INTERVAL, MOST_SERIES, OTHER, Histogram, Recorder, Series
from trio_channels.exceptions import ConnectionClosed


def connection(**attributes: Any) -> Any:
    values = {"accepted": True, "close_sent": False, "closed": None, "parting": None, "sends": 1}
    return SimpleNamespace(scope={"type": "websocket"}, **values | attributes)


class Hashable(SimpleNamespace):
    __hash__ = object.__hash__


def open_one(series: Series, **attributes: Any) -> Any:
    one = Hashable(**vars(connection(**attributes)))
    series.begin(one)
    return one


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.001, 0), (0.0011, 1), (10.0, len(BUCKETS) - 1), (11.0, len(BUCKETS))]
)
def test_duration_goes_into_its_bucket(seconds: float, bucket: int) -> None:
    histogram = Histogram()
    histogram.observe(seconds)
    assert histogram.values()[bucket] == 1
    assert histogram.values()[-1] == seconds
    assert sum(histogram.counts) == 1


@pytest.mark.parametrize(
    ("code", "here", "label"),
    [
        (1000, False, "1000"),
        (1015, False, "1015"),
        (999, False, OTHER),
        (1016, False, OTHER),
        (4321, False, OTHER),
        (4321, True, "4321"),
    ],
)
def test_clients_cannot_make_labels_of_codes(code: int, here: bool, label: str) -> None:
    series = Series()
    series.end(open_one(series, closed=ConnectionClosed(code), close_sent=here), failed=False)
    assert dict(series.closes) == {label: 1}


def test_code_of_a_connection_that_was_cut_is_its_own() -> None:
    series = Series()
    closed = ConnectionClosed(4000)
    series.end(open_one(series, closed=closed, parting=closed), failed=False)
    assert dict(series.closes) == {"4000": 1}


@pytest.mark.parametrize(
    ("attributes", "sent"),
    [
        ({"sends": 1}, 0),  # the handshake's answer
        ({"sends": 4}, 3),
        ({"sends": 5, "close_sent": True}, 3),
        ({"sends": 1, "accepted": False, "close_sent": True}, 0),  # denied
    ],
)
def test_messages_to_the_client_are_counted_before_and_after_its_end(attributes: Any, sent: int) -> None:
    series = Series()
    one = open_one(series, **attributes)
    assert (series.sent, series.open) == (sent, 1)
    series.end(one, failed=True)
    assert (series.sent, series.open, series.failed) == (sent, 0, 1)


@pytest.mark.parametrize("written", [True, False])
def test_broadcast_is_counted_if_it_was_written(written: bool) -> None:
    series = Series()
    assert series.counting(lambda _message, _frames: written)({}, {}) is written
    assert series.sent == written


async def test_message_for_which_there_is_no_room_is_not_counted() -> None:
    series = Series()
    queue = series.queue(2, Wakeup())
    events = [{"type": "websocket.connect"}, *[{"type": "websocket.receive", "text": "a"}] * 2]
    assert [queue.offer(event) for event in events] == [True, True, False]
    assert series.received == 1


def test_number_of_series_is_bounded() -> None:
    recorder = Recorder()
    for number in range(MOST_SERIES + 10):
        recorder.series_of("websocket", f"{number}/").opened += 1
        recorder.requests_of(f"{number}/").answered(200, 0.1)
    assert len(recorder.series) == len(recorder.requests) == MOST_SERIES + 1
    assert recorder.series["websocket", OTHER].opened == 10
    assert recorder.requests[OTHER].statuses["200"] == 10


@pytest.mark.parametrize(
    ("scope", "key"),
    [
        ({"type": "websocket", "url_pattern": "chat/<name>/", "path": "/chat/a/"}, ("websocket", "chat/<name>/")),
        ({"type": "websocket", "path": "/chat/a/"}, ("websocket", "")),
        ({"type": "channel", "channel": "thumbnails"}, ("channel", "thumbnails")),
    ],
)
def test_route_is_the_pattern_or_the_channel(scope: Any, key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "recorder", None)
    recorder = recording.start()
    assert recording.series_for(scope) is recorder.series[key]
    assert recording.start() is recorder


async def test_lag_is_measured_again_and_again(autojump_clock: trio.testing.MockClock) -> None:
    recorder = Recorder()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.watch_loop)
        await trio.sleep(10.5 * LAG_INTERVAL)
        nursery.cancel_scope.cancel()
    assert recorder.lag.values() == [10, *[0] * len(BUCKETS), 0.0]
