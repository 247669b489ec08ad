"""Asks for metrics, as Prometheus does, and reads them with its own parser."""

from __future__ import annotations

from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from trio_channels.testing import HttpCommunicator

from ..integration.server.conftest import Server


class Scraped:
    """The samples of one answer."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def of(self, name: str, **labels: str) -> float | None:
        """The value of the one sample with this name and these labels, without ``trio_channels_``."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name in (name, f"trio_channels_{name}") and sample.labels.items() >= labels.items()
        ]
        assert len(found) <= 1, (name, labels, found)
        return found[0] if found else None


async def scrape(application: Any) -> Scraped:
    """Ask an application in this process."""
    response = await HttpCommunicator(application, "GET", "/metrics").get_response()
    assert response["status"] == 200
    return Scraped(response["body"].decode())


async def scrape_server(port: int) -> Scraped:
    """Ask a server."""
    response = await Server(port).request("GET", "/metrics")
    assert response.status == 200, response
    return Scraped(response.body.decode())
