"""sentry-sdk: each error and each transaction is about its own request, user and queries."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .serving import Site, ada_and_grace, at_once, site

OPTIONS = {"CALL": {"import": "tests.packages.sites.sentry_set_up.init"}}


def reported(served: Site, kind: str) -> list[dict[str, Any]]:
    """The events about the failing view."""
    events = [json.loads(line) for line in (served.folder / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["request"]["url"].endswith(f"/{kind}/")]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_events_are_not_mixed(kind: str) -> None:
    async with site("sentry", **OPTIONS) as served, ada_and_grace(served) as visitors:
        for _ in range(5):
            addresses = (f"/{kind}/?requests=2&user={name}" for name in ("ada", "grace"))
            answers = await at_once(*(who.get(address) for who, address in zip(visitors, addresses, strict=True)))
            assert [answer.status_code for answer in answers] == [500, 500]
        events = reported(served, kind)
        errors = [event for event in events if "exception" in event]
        transactions = [event for event in events if event.get("type") == "transaction"]
        assert (len(errors), len(transactions)) == (10, 10)
        for event in errors:
            name = event["exception"]["values"][-1]["value"]
            assert event["tags"]["name"] == name
            assert event["user"]["username"] == name
            assert event["request"]["query_string"].endswith(f"user={name}")
        for event in transactions:
            name = event["request"]["query_string"].rpartition("=")[2]
            assert event["tags"]["name"] == name
            assert len([span for span in event["spans"] if "auth_user" in span["description"]]) == 2
