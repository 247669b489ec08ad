"""``manage.py channels`` and a runner with two processes, over Redis."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..integration.server.conftest import Server
from ..process import program
from ..redis_server import RedisServer
from ..runner.serving import serving

SETTINGS = "tests.inspector.settings"


@pytest.mark.slow
async def test_every_process_of_a_runner_answers(redis_server: RedisServer, tmp_path: Path) -> None:
    environment = {
        "TESTS_DATABASE": str(tmp_path / "database"),
        "TESTS_REDIS": redis_server.url,
        "TESTS_PREFIX": f"runner{tmp_path.name}",
    }
    async with serving(
        "--workers=2", app="tests.inspector.site:application", settings=SETTINGS, **environment
    ) as runner:
        await runner.said(r"Running on", 2)
        async with Server(await runner.port()).websocket("/room/garden/?token=secret"):
            command = ("-m", "django", "channels", "--json")
            async with program(*command, DJANGO_SETTINGS_MODULE=SETTINGS, **environment) as channels:
                assert await channels.ends() == 0, channels.text
    seen = json.loads(channels.text)
    assert len({report["process"]["pid"] for report in seen["reports"]}) == 2
    assert [row["path"] for report in seen["reports"] for row in report["connections"]] == ["/room/garden/?token=***"]
    assert [queue["channel"] for queue in seen["queues"]] == ["jobs"]
    assert (seen["silent"], seen["shared"]) == ([], True)
