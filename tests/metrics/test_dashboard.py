"""The dashboard, the how-to's alerts and the reference name figures that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from trio_channels._metrics.recording import BUCKETS
from trio_channels._metrics.snapshot import FAMILIES, Snapshot
from trio_channels.metrics.application import _Exposition

from .scraping import Scraped

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD = json.loads((DOCS / "dashboards" / "trio-channels.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
ALERTS = re.findall(r"expr: (.*)", (DOCS / "how-to" / "metrics.md").read_text())


@pytest.fixture(scope="module")
def exposed() -> Scraped:
    """An exposition with every family."""
    snapshot: Snapshot = {
        (name, tuple("x" for _ in family.labels)): [1.0] * (len(BUCKETS) + 2 if family.kind == "histogram" else 1)
        for name, family in FAMILIES.items()
    }
    registry = CollectorRegistry()
    registry.register(_Exposition(snapshot))
    return Scraped(generate_latest(registry).decode())


@pytest.mark.parametrize("query", [*QUERIES, *ALERTS])
def test_query_asks_for_figures_and_labels_that_are_exposed(query: str, exposed: Scraped) -> None:
    labels = {sample.name: set(sample.labels) for sample in exposed.samples}
    names = set(re.findall(r"\b(?:trio_channels|process)_\w+", query))
    assert names
    assert names <= set(labels)
    grouped = {label for group in re.findall(r"by \((.*?)\)", query) for label in group.split(", ")}
    for name in names:
        assert grouped <= labels[name], name
        assert set(re.findall(r"(\w+)!?=~?\"", query)) - {"job"} <= labels[name]


def test_every_figure_has_its_place_on_the_dashboard(exposed: Scraped) -> None:
    shown = {name for query in QUERIES for name in re.findall(r"\b(?:trio_channels|process)_\w+", query)}
    assert [name for name in FAMILIES if not any(one.startswith(name) for one in shown)] == []


def test_reference_lists_every_figure() -> None:
    listed = re.findall(r"^\| `(\w+?)(?:_total)?` \| (\w+) \|", (DOCS / "reference" / "metrics.md").read_text(), re.M)
    assert listed == [(name, family.kind) for name, family in FAMILIES.items()]


def test_histogram_is_cumulative(exposed: Scraped) -> None:
    assert exposed.of("event_loop_lag_seconds_bucket", le="0.001") == 1
    assert exposed.of("event_loop_lag_seconds_bucket", le="+Inf") == len(BUCKETS) + 1
    assert exposed.of("event_loop_lag_seconds_count") == len(BUCKETS) + 1
