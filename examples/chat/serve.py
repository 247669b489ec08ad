#!/usr/bin/env python
"""Run the chat: ``python serve.py`` serves it on http://127.0.0.1:8000/, ``python serve.py 8080`` on another port.

It is short for these two commands, given in this folder::

    python manage.py migrate
    hypercorn --worker-class trio --bind 127.0.0.1:8000 mysite.asgi:application
"""

import argparse
import os
import socket
import sys
from pathlib import Path

import django
from django.core.management import call_command

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"


def port_number(text: str) -> int:
    """The command's argument as a port."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535; got {text!r}")
    return int(text)


def refuse_taken_port(port: int) -> None:
    """Say so in one sentence, where the server would give a traceback."""
    with socket.socket() as probe:
        # As the server does it: a port that was closed a moment ago is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SystemExit(
                f"Cannot serve on port {port}: {error.strerror}. Try another: python serve.py {port % 65535 + 1}"
            ) from None


def main() -> None:
    """Migrate the database, print the address, and become hypercorn."""
    parser = argparse.ArgumentParser(description="Serve the chat example with hypercorn on Trio.")
    parser.add_argument("port", type=port_number, nargs="?", default=8000, help="8000 by default")
    port = parser.parse_args().port
    refuse_taken_port(port)

    os.chdir(HERE)
    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
    django.setup()
    call_command("migrate", verbosity=0)

    print(f"The chat is on http://{HOST}:{port}/  (Ctrl-C stops it)", flush=True)  # noqa: T201
    server = [sys.executable, "-m", "hypercorn", "--worker-class", "trio", "--bind", f"{HOST}:{port}"]
    # Pages stay connected for as long as they are open, so that there is little to wait for when it is to stop.
    server += ["--graceful-timeout", "1"]
    os.execv(sys.executable, [*server, "mysite.asgi:application"])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
