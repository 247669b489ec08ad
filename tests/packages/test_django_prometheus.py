"""django-prometheus: every request, query and exception is counted once."""

from __future__ import annotations

import re

from .serving import at_once, site

OPTIONS = {
    "apps": ["django_prometheus"],
    "first": ["django_prometheus.middleware.PrometheusBeforeMiddleware"],
    "last": ["django_prometheus.middleware.PrometheusAfterMiddleware"],
    "ENGINE": "django_prometheus.db.backends.sqlite3",
}


async def test_metrics_count_requests_queries_and_errors() -> None:
    async with site("prometheus", **OPTIONS) as served, served.visitor() as visitor:
        each = ("sync", "async", "streamed", "failing")
        answers = await at_once(*(visitor.get(f"/{view}/") for view in each for _ in range(5)))
        assert [answer.status_code for answer in answers[::5]] == [200, 200, 200, 500]
        metrics = (await visitor.get("/metrics")).text

        def value(name: str, *labels: str) -> float:
            lines = [line for line in metrics.splitlines() if re.match(rf"{name}[{{ ]", line)]
            (line,) = (line for line in lines if all(label in line for label in labels))
            return float(line.rsplit(" ", 1)[1])

        for view in each:
            label = f'view="{view}"'
            assert value("django_http_requests_total_by_view_transport_method_total", label) == 5, view
        by_status = "django_http_responses_total_by_status_view_method_total"
        assert value(by_status, 'status="200"', 'view="async"') == 5
        assert value("django_http_exceptions_total_by_view_total", 'view="failing"') == 5
        assert value("django_http_responses_streaming_total") == 5
        assert value("django_db_execute_total", 'alias="default"') >= 10
