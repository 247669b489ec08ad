"""opentelemetry-instrumentation-django, with its extra "asgi": one trace a request, with the view's own spans in it."""

from __future__ import annotations

import json

import pytest

from .serving import at_once, site

OPTIONS = {"CALL": {"import": "tests.packages.sites.opentelemetry_set_up.instrument"}}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_spans_belong_to_the_trace_of_their_request(kind: str) -> None:
    traces = {name: f"{number:032x}" for number, name in enumerate(("ada", "grace"), start=1)}
    async with site("opentelemetry", **OPTIONS) as served, served.visitor() as visitor:
        answers = await at_once(
            *(
                visitor.get(f"/{kind}/?requests=2&user={name}", headers={"traceparent": f"00-{known}-{'1' * 16}-01"})
                for name, known in traces.items()
            )
        )
        assert [answer.text for answer in answers] == list(traces.values())
        spans = [json.loads(line) for line in (served.folder / "spans.jsonl").read_text().splitlines()]
        own = [span for span in spans if span["name"] == "own"]
        outer = {span["context"]["span_id"]: span for span in spans if span["kind"] == "SpanKind.SERVER"}
        assert (len(own), len(outer)) == (2, 2)
        for span in own:
            parent = outer[span["parent_id"]]
            name = span["attributes"]["user"]
            assert span["context"]["trace_id"] == parent["context"]["trace_id"] == f"0x{traces[name]}"
            assert (parent["attributes"]["http.route"], parent["attributes"]["http.status_code"]) == (f"{kind}/", 200)
        assert "Failed to detach context" not in served.log
