#!/usr/bin/env python
"""Run the chat as two server processes that share a database and a private Redis.

``python serve_redis.py`` serves it on http://127.0.0.1:8000/ and http://127.0.0.1:8001/; ``python serve_redis.py 8080``
on 8080 and 8081. People on both servers talk with each other. A server that ends is started again: kill one, and watch
its pages reconnect. Ctrl-C stops everything.
"""

import argparse
import os
import sys
from pathlib import Path

import django
from django.core.management import call_command

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the folder of all examples

from private_redis import private_redis
from processes import HOST, port_number, refuse_taken_port, run, server, wait_with_signals

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Start Redis, migrate the database, and serve."""
    parser = argparse.ArgumentParser(description="Serve the chat example with two processes and a Redis.")
    parser.add_argument("port", type=port_number, nargs="?", default=8000, help="the first of the two; 8000 by default")
    port = parser.parse_args().port
    if port == 65535:
        parser.error("expected a port of at most 65534, because the second server takes the next one; got 65535")
    ports = port, port + 1
    for each in ports:
        refuse_taken_port(each)
    wait_with_signals()

    os.chdir(HERE)
    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    with private_redis() as url:
        os.environ["CHAT_REDIS"] = url
        django.setup()
        call_command("migrate", verbosity=0)
        run(*((f"The chat is on http://{HOST}:{each}/", server(each)) for each in ports))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
