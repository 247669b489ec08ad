"""Our tutorial, written for Channels, is upgraded to our tutorial."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_channels.upgrade.source import upgrade

pytestmark = pytest.mark.slow  # the syntax trees of libcst are made slowly

TUTORIAL = Path(__file__).parents[2] / "docs" / "snippets" / "tutorial"
#: The parts that one can write for Channels in the same way.
PARTS = ("1_chat", "2_users", "4_processes")
FILES = sorted(
    path for part in PARTS for path in (TUTORIAL / part).rglob("*.py") if "trio_channels" in path.read_text()
)

#: The names of Channels for those of the tutorial; the first that fits.
THEIRS = {
    "trio_channels.layers.redis.RedisStreamsChannelLayer": "channels_redis.core.RedisChannelLayer",
    "trio_channels.asgi": "django.core.asgi",
    "trio_channels.sync": "asgiref.sync",
    "trio_channels": "channels",
}


def for_channels(source: str) -> str:
    """The source as one would write it for Channels."""
    for ours, theirs in THEIRS.items():
        source = source.replace(ours, theirs)
    return source


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TUTORIAL)))
def test_tutorial_for_channels_becomes_ours(path: Path) -> None:
    source = path.read_text()
    assert for_channels(source) != source
    upgraded = upgrade(for_channels(source).encode())
    assert upgraded.source.decode() == source
    assert not upgraded.decisions
