"""Sending from processes of their own: scripts, a WSGI server; and how these end."""

from __future__ import annotations

import re
import signal
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import PATIENCE, Room

pytestmark = pytest.mark.slow

SETUP = """
import django; django.setup()
from trio_channels.layers import get_channel_layer
from trio_channels.sync import async_to_sync, sync_to_async
def say(text, kind="said"):
    async_to_sync(get_channel_layer().group_send)("room", {"type": kind, "text": text})
"""


def texts(messages: list[dict[str, str]]) -> list[str]:
    return [message["text"] for message in messages]


def test_script_sends_without_set_up_and_ends_cleanly(room: Room) -> None:
    receiver = room.listen()
    room.run(SETUP + "say('hello'); say('', 'last')")
    assert texts(receiver.messages()) == ["hello"]


@pytest.mark.faults
def test_from_the_shell_of_manage_py(room: Room) -> None:
    receiver = room.listen()
    for text, kind in ("hello", "said"), ("", "last"):
        line = f"async_to_sync(get_channel_layer().group_send)('room', {{'type': {kind!r}, 'text': {text!r}}})"
        script = SETUP.replace("import django; django.setup()\n", "") + line
        shell = room.start("-m", "django", "shell", "-c", script)
        errors = shell.communicate(timeout=PATIENCE)[1]
        assert (shell.returncode, errors) == (0, "")
    assert texts(receiver.messages()) == ["hello"]


@pytest.mark.faults
def test_what_a_script_leaves_in_redis_is_gone_when_it_has_ended(room: Room) -> None:
    room.run(SETUP + "say('hello')")
    left = room.run(
        "import os, trio\n"
        "from trio_channels.layers.redis.hosts import parse_host\n"
        "from trio_channels.layers.redis.connection import open_connection\n"
        "async def main():\n"
        "    connection = await open_connection(parse_host(os.environ['TEST_REDIS']))\n"
        "    print(*await connection.exchange(('KEYS', '{' + os.environ['TEST_PREFIX'] + ':*')))\n"
        "    await connection.aclose()\n"
        "trio.run(main)"
    )
    assert left == "[]\n"


@pytest.mark.faults
def test_script_whose_redis_is_away_gets_an_error_and_ends(room: Room) -> None:
    room.environment["TEST_REDIS"] = "unix:///nowhere/redis.sock"
    script = SETUP + (
        "from trio_channels.exceptions import ChannelLayerUnavailable\n"
        "layer = get_channel_layer(); layer.timeout = 0.5\n"
        "try: say('hello')\n"
        "except ChannelLayerUnavailable as error: print(error)\n"
    )
    process = room.start("-c", script)
    output, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "could not be opened within 0.5 seconds" in output
    assert log.count("\n") == 1
    assert "is not available: the connection to Redis at /nowhere/redis.sock failed" in log


def test_call_at_exit_after_the_background_run_fails(room: Room) -> None:
    script = (
        "import atexit\n"
        "def late():\n"
        "    from trio_channels.exceptions import BridgeError\n"
        "    try: say('too late')\n"
        "    except BridgeError as error: print(error)\n"
        "atexit.register(late)\n"
    )
    assert "while the process is ending" in room.run(script + SETUP)


@pytest.mark.faults  # for its length alone
def test_asyncio_site_sends_from_its_views(room: Room) -> None:
    receiver = room.listen()
    process = room.start("-m", "tests.integration.outside.asyncio_site")
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output, errors) == (0, "asyncio asyncio trio\n", "")
    said = [f"{kind} {number}" for kind in ("sync", "async") for number in range(10)]
    assert sorted(texts(receiver.messages())) == sorted(2 * said)


INTERRUPTED = (
    SETUP
    + """
import trio
async def wait():
    print("waiting", flush=True)
    try: await trio.sleep_forever()
    except trio.Cancelled: print("cancelled", flush=True); raise
try: async_to_sync(wait)()
except KeyboardInterrupt: print("interrupted", flush=True)
say("after it"); say("", "last")
"""
)


def test_ctrl_c_cancels_the_async_function_that_main_awaits(room: Room) -> None:
    receiver = room.listen()
    process = room.start("-c", INTERRUPTED)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output, errors) == (0, "cancelled\ninterrupted\n", "")
    assert texts(receiver.messages()) == ["after it"]


def test_exit_does_not_wait_for_a_daemon_thread(room: Room) -> None:
    script = SETUP + (
        "import threading, trio\n"
        "started = threading.Event()\n"
        "async def wait():\n"
        "    started.set()\n"
        "    await trio.sleep_forever()\n"
        "def call():\n"
        "    try: async_to_sync(wait)()\n"
        "    except BaseException: pass\n"
        "threading.Thread(target=call, daemon=True).start()\n"
        "started.wait()\n"
    )
    assert room.run(script) == ""


@pytest.mark.faults
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_wsgi_site_under_gunicorns_threads_sends_from_its_views(room: Room, preload: tuple[str, ...]) -> None:
    receiver = room.listen()
    command = ["-m", "gunicorn", "--worker-class", "gthread", "--threads", "8", "--workers", "2", *preload]
    server = room.start(
        *command, "--bind", "127.0.0.1:0", "tests.integration.outside.wsgi:application", stderr=subprocess.STDOUT
    )
    assert server.stdout is not None
    log = ""
    while not (listening := re.search(r"Listening at: (http://\S+)", log)):
        log += (line := server.stdout.readline())
        assert line, log

    def get(text: str) -> bytes:
        with urllib.request.urlopen(f"{listening[1]}/say/{text}/", timeout=PATIENCE) as response:
            return bytes(response.read())

    said = [f"text-{number}" for number in range(100)]
    with ThreadPoolExecutor(16) as executor:
        assert set(executor.map(get, said, timeout=PATIENCE)) == {b"sent"}
    room.run(SETUP + "say('', 'last')")

    assert sorted(texts(receiver.messages())) == sorted(said)
    server.send_signal(signal.SIGTERM)
    log += server.communicate(timeout=PATIENCE)[0]
    assert server.returncode == 0, log
    assert "Traceback" not in log
    assert "Warning" not in log
