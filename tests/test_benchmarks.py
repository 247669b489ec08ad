"""Every side of every benchmark does its work; how fast is not asserted here."""

from __future__ import annotations

import json
import multiprocessing.context
import socket
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import _redis_receiver, p1_fan_out, p2_echo, p6_connect, report
from benchmarks.__main__ import workloads
from benchmarks.harness import ROOT, Comparison, Result, Side, Timing, Workload, main, run_side, table
from benchmarks.sockets import clients

from .benchmark_sides import forking, is_ours, over_sockets, try_side
from .redis_server import needs_redis

#: The workloads that start a Redis.
WITH_REDIS = ("p3_redis", "p12_two_processes", "p13_history", "p13_presence")

#: Each side of each workload, where its servers are. The peers over sockets have a session of their own.
SIDES = [
    pytest.param(
        workload,
        side,
        id=f"{workload.name}-{side}",
        marks=[needs_redis] if workload.name in WITH_REDIS else [],
    )
    for workload in workloads()
    for side in workload.sides
    if not over_sockets(workload) or is_ours(side)
]


@pytest.fixture(scope="module")
def fork() -> multiprocessing.context.ForkServerContext:
    """Processes forked from one that has already imported the slow modules."""
    return forking()


@pytest.mark.slow
@pytest.mark.parametrize(("workload", "side"), SIDES)
def test_side_does_all_its_work(workload: Workload, side: str, fork: multiprocessing.context.ForkServerContext) -> None:
    try_side(workload, side, fork)


def test_side_runs_in_its_own_process_and_reports() -> None:
    line = run_side(p2_echo.WORKLOAD, "plain", 2)
    assert line.keys() == {"us", "cpu_us", "operations"}
    assert line["operations"] == 2
    assert line["us"] > 0
    assert line["cpu_us"] >= 0


@pytest.mark.parametrize("workload", workloads(), ids=lambda workload: workload.name)
def test_workload_compares_sides_that_it_has(workload: Workload) -> None:
    compared = {name for comparison in workload.comparisons for name in (comparison.ours, comparison.peer)}
    assert compared == set(workload.sides)


def _workload(comparison: Comparison, **needs: tuple[str, ...]) -> Workload:
    sides = {name: Side(lambda count: Timing(count, 1.0, 1.0), 1, needs.get(name, ())) for name in ("ours", "peer")}
    return Workload("made_up", "made up", "thing", sides, [comparison])


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    comparison = Comparison("all", "ours", "peer", faster=3)
    result = Result(_workload(comparison), comparison, ours=[1.0, 2.0, 10.0], peer=[4.0, 8.0, 20.0])
    assert result.ratios == [4.0, 4.0, 2.0]
    assert result.ratio == 4.0
    assert result.verdict == "met"


def test_target_for_the_time_of_ours_is_missed_from_above() -> None:
    comparison = Comparison("all", "ours", "peer", slower=1.6)
    result = Result(_workload(comparison), comparison, ours=[17.0], peer=[10.0])
    assert result.ratio == pytest.approx(1.7)
    assert result.verdict == "missed"


def test_table_has_the_target_beside_the_ratio() -> None:
    comparison = Comparison("all", "ours", "peer", faster=3)
    text = table([Result(_workload(comparison), comparison, ours=[1.0], peer=[4.0])])
    assert text.splitlines()[1].split() == ["made", "up", "all", "1.00", "4.00", *["4.00x"] * 3, ">=", "3x", "met"]


def test_document_tells_the_versions_and_the_figures(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    status = main([p2_echo.WORKLOAD], ["--quick", "--scale", "0.01", "--output", str(output)])
    assert status == 0
    written = json.loads(output.read_text())
    assert written["date"].endswith("+00:00")
    assert {"python", "trio", "django", "channels", "asgiref"} <= written["versions"].keys()
    workload = written["workloads"]["p2_echo"]
    assert len(workload["sides"]["plain"]["us"]) == 1
    (title,) = {one["title"] for one in workload["comparisons"]} & {"async consumer, plain Trio loop"}
    shown = report.cell(written, "p2_echo", title)
    ours, theirs = (workload["sides"][side]["us"][0] for side in ("ours-async", "plain"))
    assert shown is not None
    assert shown.median == pytest.approx(theirs / ours)


def test_pages_show_the_results_that_are_kept() -> None:
    documents = [json.loads(file.read_text()) for file in sorted((ROOT / "benchmarks" / "results").glob("*.json"))]
    for page, most in report.PAGES.items():
        _, _, rest = (ROOT / page).read_text().partition(report.BEGIN)
        assert rest.partition(report.END)[0].strip() == report.text(documents[:most])


def _measured(processors: int, *, echo: list[float], connect: list[float], trio: str = "0.35.0") -> Any:
    def workload(title: str, theirs: list[float]) -> Any:
        comparison = {"title": title, "ours": "ours", "peer": "peer", "of": "us"}
        return {"sides": {"ours": {"us": [1.0] * len(theirs)}, "peer": {"us": theirs}}, "comparisons": [comparison]}

    return {
        "date": f"2026-01-0{processors}T00:00:00+00:00",
        "versions": {"trio": trio, "python": "3.11.7"},
        "platform": "Linux 6.1",
        "processor": "a processor",
        "processors": processors,
        "rounds": 3,
        "workloads": {
            "p2_echo": workload("async consumer, channels", echo),
            "p6_connect": workload("one client, channels", connect),
        },
    }


def test_another_machine_is_a_column_with_how_far_its_ratios_differ() -> None:
    first = _measured(2, echo=[4.0, 6.0, 5.0], connect=[1.5, 1.5, 1.5])
    other = _measured(1, echo=[5.0, 2.5, 2.0], connect=[1.5, 1.5, 1.5], trio="0.34.0")
    shown = report.text([first, other])
    assert "on 2026-01-02 on 2 cores of a processor" in shown
    assert (
        " Beside it, one core of a processor (Linux 6.1), which clients and Redis share with the server, measured on "
        "2026-01-01 with trio 0.34.0: in half of the rows the two ratios differ by less than 1.50 times, at most by "
        "2.0 times."
    ) in shown
    assert "| compared with | on 2 cores of a processor | on one core of a processor |" in shown
    assert "| without sockets: echo, async | Channels | 5.0 (4.0 to 6.0) | 2.5 (2.0 to 5.0) |" in shown


def test_charts_are_drawn_from_the_results_that_are_kept(tmp_path: Path) -> None:
    document = json.loads(min((ROOT / "benchmarks" / "results").glob("*.json")).read_text())
    for drawn in report.draw(document, tmp_path):
        ElementTree.parse(drawn)
        assert drawn.read_text() == (report.CHARTS / drawn.name).read_text()


def test_rows_of_the_table_are_comparisons_of_the_workloads() -> None:
    titles = {(workload.name, comparison.title) for workload in workloads() for comparison in workload.comparisons}
    assert {row[:2] for row in report.ROWS} <= titles


def test_socket_client_counts_messages_and_answers_pings() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = clients.WebSocket(ours)
        theirs.sendall(clients.MESSAGE + b"\x89\x02hi" + clients.MESSAGE[:5])
        assert client.read() == 1
        assert theirs.recv(100) == b"\x8a\x82" + bytes(4) + b"hi"
        theirs.sendall(clients.MESSAGE[5:])
        assert client.read() == 1
        assert client.got == 2


@pytest.mark.parametrize("data", [b"\x81\x02no", b"\x88\x00", b""])
def test_socket_client_fails_at_other_data(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = clients.WebSocket(ours)
        if data:
            theirs.sendall(data)
        else:
            theirs.close()
        with pytest.raises(RuntimeError, match="expected"):
            client.read()


def test_comparison_without_its_peer_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = Comparison("all", "ours", "peer", faster=3)
    status = main([_workload(comparison, peer=("no_such_module",))], ["--rounds", "1"])
    assert status == 0
    shown = capsys.readouterr()
    assert "left out 'all': not installed: no_such_module" in shown.err
    assert len(shown.out.splitlines()) == 1


def test_fan_out_that_lost_a_message_fails() -> None:
    clients = [p1_fan_out.Client(p1_fan_out.Audience(2)) for _ in range(2)]
    clients[0].take({"type": "websocket.send", "text": p1_fan_out.TEXT})
    with pytest.raises(RuntimeError, match="1 members did not get 1 messages; the first of them got 0"):
        p1_fan_out.verify(clients, 1)


def test_echo_of_another_message_fails() -> None:
    with pytest.raises(RuntimeError, match="expected 'one' to be sent back"):
        p2_echo.verify({"type": "websocket.send", "text": "two"}, "one")


def test_receiver_fails_if_a_message_is_lost_or_comes_again() -> None:
    reports: list[str] = []
    take = _redis_receiver.Audience(2, lambda: reports.append("a portion")).member()
    take(_redis_receiver.message(0, 0))
    take(_redis_receiver.message(1, 0))
    assert reports == ["a portion"]
    with pytest.raises(RuntimeError, match="expected number 1 of sender 0; got 2"):
        take(_redis_receiver.message(0, 2))
    with pytest.raises(RuntimeError, match="expected number 1 of sender 1; got 0"):
        take(_redis_receiver.message(1, 0))


def test_connection_that_was_not_accepted_fails() -> None:
    with pytest.raises(RuntimeError, match=r"expected one websocket\.accept and no other message; got \[\]"):
        p6_connect.Visit("sessionid=none", None).verify()
