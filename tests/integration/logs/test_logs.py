"""Each line comes out once, under every ``LOGGING``, however the project is served."""

from __future__ import annotations

import re
import signal

import pytest
from trio_websocket import ConnectionRejected

from ...process import Program, program
from ...runner.serving import close_code
from ..server.conftest import Server
from .configurations import CONFIGURATIONS, shows_djangos_own

APPLICATION = "tests.integration.logs.application:application"
#: Each way to run: its arguments, and the processes that serve.
WAYS = {
    "serve": (("-m", "trio_channels", "serve", APPLICATION, "--bind=127.0.0.1:0"), 1),
    "serve, two": (("-m", "trio_channels", "serve", APPLICATION, "--bind=127.0.0.1:0", "--workers=2"), 2),
    "hypercorn": (("-m", "hypercorn", "--worker-class=trio", APPLICATION, "--bind=127.0.0.1:0"), 1),
    "runserver": (("-m", "django", "runserver", "0", "--noreload", "--skip-checks"), 1),
}

pytestmark = pytest.mark.faults


async def fail_everywhere(server: Server) -> None:
    """Have the server log one line for each event."""
    with pytest.raises(ConnectionRejected):
        async with server.websocket("/none/"):
            pass
    for place in ("/handler/", "/background/"):
        async with server.websocket(place) as client:
            await client.send_message("fail")
            assert await close_code(client) == 1011
    assert (await server.request("GET", "/fails/")).status == 500


async def started(served: Program, processes: int) -> Server:
    """Wait until it serves, and has noticed that its Redis is away."""
    port = int((await served.said(r"(?:Running on|server on Trio at) http://\S+:(\d+)[ /]", times=processes))[0])
    await served.said("is not available", times=processes)
    return Server(port)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
async def test_each_line_comes_out_once(configuration: str, way: str, tmp_path: object) -> None:
    arguments, processes = WAYS[way]
    settings = {
        "DJANGO_SETTINGS_MODULE": "tests.integration.logs.settings",
        "TESTS_LOGGING": configuration,
        "TESTS_REDIS": f"{tmp_path}/none.sock",
        "PYTHONUNBUFFERED": "1",
    }
    async with program(*arguments, **settings) as served:
        await fail_everywhere(await started(served, processes))
        served.process.send_signal(signal.SIGTERM)
        await served.ends()
    expected = {
        r"(?m)^.*no route for the path '/none/'": 1,
        r"(?m)^ValueError: boom in a handler": 1,
        r"(?m)^(  \| )?ValueError: boom in the background": 1,
        r"(?m)^ValueError: boom in a view": int(shows_djangos_own(configuration)),
        r"Running on http": 0 if way == "runserver" else processes,
        r"Starting ASGI development server": int(way == "runserver"),
        r"SIGTERM: draining": int(way.startswith("serve")),
        r"is not available": processes,
    }
    assert {event: len(re.findall(event, served.text)) for event in expected} == expected, served.text
