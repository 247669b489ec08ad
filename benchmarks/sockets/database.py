"""Makes the database of a server, and prints the cookie of its session: ``python -m benchmarks.sockets.database``."""

from __future__ import annotations

from . import project

if __name__ == "__main__":
    project.set_up("trio_channels.layers.InMemoryChannelLayer", "trio_channels")
    print(project.make_database())
