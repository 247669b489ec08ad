"""sentry-sdk: each error and each transaction is about its own request, user and queries."""

from __future__ import annotations

from contextlib import AsyncExitStack
from operator import itemgetter
from typing import Any

import pytest
from trio_websocket import ConnectionClosed

from .._http.common import until
from .serving import Site, ada_and_grace, at_once, site

OPTIONS = {"CALL": {"import": "tests.packages.sites.sentry_set_up.init"}}
FAILING = "tests.packages.sites.sentry.failing"


def reported(served: Site, kind: str) -> list[dict[str, Any]]:
    """The events about a view or a consumer."""
    events = served.lines("events.jsonl")
    return [event for event in events if event["request"]["url"].endswith(f"/{kind}/")]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(("name", "options"), [("sentry", OPTIONS), ("sentry_late", {})])
async def test_events_are_not_mixed(name: str, options: dict[str, Any], kind: str) -> None:
    async with site(name, **options) as served, ada_and_grace(served) as visitors:
        for _ in range(5):
            addresses = (f"/{kind}/?requests=2&user={name}" for name in ("ada", "grace"))
            answers = await at_once(*(who.get(address) for who, address in zip(visitors, addresses, strict=True)))
            assert [answer.status_code for answer in answers] == [500, 500]
        await until(lambda: len(reported(served, kind)) == 20)  # a transaction ends after its response
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
            # In an async view, Sentry itself loads the user of its event: auser() has left none for request.user.
            queries = {"sync": 2, "async": 3}[kind]
            assert len([span for span in event["spans"] if "auth_user" in span["description"]]) == queries


@pytest.mark.parametrize("kind", ["stream", "below"])
async def test_stream_and_middleware_report_their_own_request(kind: str) -> None:
    async with site("sentry", first=[FAILING], **OPTIONS) as served, served.visitor() as visitor:
        names = ["ada", "grace", "linus"]
        for _ in range(3):
            await at_once(*(visitor.get(f"/{kind}/?requests=3&user={name}") for name in names))
        await until(lambda: len(reported(served, kind)) == 18)  # one error or message, and one transaction, for each
        for event in reported(served, kind):
            name = event["request"]["query_string"].rpartition("=")[2]
            assert event["tags"]["name"] == name
            assert event["transaction"] == f"/{kind}/"
            if "exception" in event:
                assert event["exception"]["values"][-1]["value"] == name
            elif event.get("type") != "transaction":
                assert event["message"] == name


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("fault", ["handler", "background"])
async def test_websockets_are_not_mixed(kind: str, fault: str) -> None:
    names = ["ada", "grace", "linus"]
    async with site("sentry", **OPTIONS) as served, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(served.websocket(f"/{kind}/")) for _ in names]
        for client, name in zip(clients, names, strict=True):
            await client.send_message(name)
            assert await client.get_message() == "noted"
        for client in clients:
            await client.send_message(fault)
            with pytest.raises(ConnectionClosed):
                await client.get_message()
        await until(lambda: len([each for each in reported(served, kind) if each.get("type") == "transaction"]) == 3)
        errors = [event for event in reported(served, kind) if "exception" in event]
        reports = [(event["exception"]["values"][-1]["value"].splitlines()[0], event["user"]) for event in errors]
        # A connection is closed before its error is reported, so the order may be another one.
        assert sorted(reports, key=itemgetter(0)) == [(name, {"username": name}) for name in names]
