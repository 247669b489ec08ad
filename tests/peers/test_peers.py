"""The peers of the benchmarks over sockets do their work; run by the nox session "peers", which installs them."""

from __future__ import annotations

import multiprocessing.context

import pytest

from benchmarks.__main__ import workloads
from benchmarks.harness import Workload

from ..benchmark_sides import forking, is_ours, over_sockets, try_side

SIDES = [
    pytest.param(workload, side, id=f"{workload.name}-{side}")
    for workload in workloads()
    for side in workload.sides
    if over_sockets(workload)
    and not is_ours(side)
    # The same work with more clients; with little work that is no other.
    and not (workload.name == "p9_broadcast" and side.endswith(("-500", "-5000")))
    and not (workload.name == "p8_idle" and side.endswith("-5000"))
]


@pytest.fixture(scope="module")
def fork() -> multiprocessing.context.ForkServerContext:
    return forking()


@pytest.mark.parametrize(("workload", "side"), SIDES)
def test_peer_does_all_its_work(workload: Workload, side: str, fork: multiprocessing.context.ForkServerContext) -> None:
    try_side(workload, side, fork)
