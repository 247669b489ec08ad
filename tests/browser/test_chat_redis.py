"""The chat as ``serve_redis.py`` runs it: people on two servers, seen through Chromium."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..redis_server import needs_redis
from .conftest import CHROMIUM, SERVE, ChatServer, connected
from .test_chat import Arrive, expect, people, say, sync_api, texts

pytestmark = [
    pytest.mark.browser,
    needs_redis,
    pytest.mark.skipif(sync_api is None, reason="needs the playwright package: pip install playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH: apt-get install chromium"),
]


class TwoServers(ChatServer):
    """``serve_redis.py``."""

    script = SERVE.with_name("serve_redis.py")
    servers = 2

    def kill(self) -> None:
        """Its servers and its Redis are in sessions of their own, and must not be left behind."""
        self.signal(signal.SIGTERM)
        self.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TwoServers]:
    """Both servers, and their Redis."""
    server = TwoServers(tmp_path / "chat.sqlite3")
    try:
        server.start()
        yield server
        assert server.stop() == 0
    finally:
        server.close()
    assert "Traceback" not in server.output, server.output


def test_room_on_two_servers_outlives_a_killed_one(visitor: Arrive, server: TwoServers) -> None:
    ada = visitor().enter("garden", "Ada")
    tom = visitor().open("/")
    tom.goto(f"http://127.0.0.1:{server.port + 1}/chat/garden/")
    connected(tom)
    expect(people(ada)).to_have_count(2)

    say(ada, "Can you hear me over there?")
    expect(texts(tom)).to_have_text(["Can you hear me over there?"])
    second = re.search(rf":{server.port + 1}/ +\(process (\d+)\)", server.output)
    os.kill(int(second[1]), signal.SIGKILL)

    expect(tom.get_by_text("Reconnecting…")).to_be_visible()
    say(ada, "Are you still there?")
    connected(tom)
    expect(tom.locator("#resumed")).to_have_text("Resumed by position.")
    expect(texts(tom)).to_have_text(["Can you hear me over there?", "Are you still there?"])
    say(tom, "Loud and clear, after a short break.")
    said = ["Can you hear me over there?", "Are you still there?", "Loud and clear, after a short break."]
    expect(texts(ada)).to_have_text(said)
    expect(people(ada)).to_have_count(2)
    expect(people(tom)).to_have_count(2)
