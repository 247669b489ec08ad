"""elastic-apm: each error and each transaction is about its own request, user and queries."""

from __future__ import annotations

from typing import Any

import pytest

from .._http.common import until
from .serving import Site, ada_and_grace, at_once, site

OPTIONS = {
    "apps": ["elasticapm.contrib.django"],
    "first": ["elasticapm.contrib.django.middleware.TracingMiddleware"],
    "ELASTIC_APM": {
        "SERVICE_NAME": "tests",
        "TRANSPORT_CLASS": "tests.packages.sites.elastic_set_up.ToFile",
        "CENTRAL_CONFIG": False,
        "CLOUD_PROVIDER": "none",
        "METRICS_INTERVAL": "0s",
        "SPAN_COMPRESSION_ENABLED": False,
    },
}


def reported(served: Site, kind: str, **fields: str) -> list[dict[str, Any]]:
    """The events of a kind with these fields."""
    lines = served.lines("events.jsonl")
    return [event for event in lines if event["kind"] == kind and event.items() >= fields.items()]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_events_are_not_mixed(kind: str) -> None:
    async with site("elastic", **OPTIONS) as served, ada_and_grace(served) as visitors:
        for _ in range(5):
            addresses = (f"/{kind}/?requests=2&user={name}" for name in ("ada", "grace"))
            answers = await at_once(*(who.get(address) for who, address in zip(visitors, addresses, strict=True)))
            assert [answer.status_code for answer in answers] == [500, 500]
        await until(lambda: len(reported(served, "transaction", result="HTTP 5xx")) == 10)
        errors = reported(served, "error")
        transactions = {event["id"]: event for event in reported(served, "transaction", result="HTTP 5xx")}
        assert (len(errors), len(transactions)) == (10, 10)
        for event in errors:
            name = event["exception"]["message"].removeprefix("ValueError: ")
            transaction = transactions.pop(event["transaction_id"])
            for each in (event, transaction):
                assert each["context"]["tags"]["name"] == name
                assert each["context"]["user"]["username"] == name
                assert each["context"]["request"]["url"]["search"].endswith(f"user={name}")
            queries = reported(served, "span", transaction_id=transaction["id"], name="SELECT FROM auth_user")
            # In an async view, the package itself loads the user: auser() has left none for request.user.
            assert len(queries) == {"sync": 2, "async": 3}[kind]
