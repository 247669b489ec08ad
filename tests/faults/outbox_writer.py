"""A process that writes messages into the outbox until it is killed; some of its transactions it rolls back.

Each message has a row in the table of users, written by the same transaction: those that are there were committed.
"""

# ruff: noqa: E402 - Django must be set up first

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter

import django

django.setup()

from django.contrib.auth.models import User
from django.db import Error, connection, transaction

from trio_channels import outbox

#: The longest pause between two transactions, in seconds.
PAUSE = float(os.environ.get("OUTBOX_PAUSE", "0.02"))


class Undone(Exception):
    """Rolls a transaction back."""


def write(groups: list[str], run: str, numbers: Counter[str]) -> None:
    """One transaction: one to three messages, some of them in a savepoint."""
    with transaction.atomic():
        for group in random.choices(groups, k=random.randint(1, 3)):
            write_one(group, run, numbers)
        try:
            with transaction.atomic():
                write_one(random.choice(groups), run, numbers)
                if random.random() < 0.5:
                    raise Undone
        except Undone:
            pass
        if random.random() < 0.3:
            raise Undone


def write_one(group: str, run: str, numbers: Counter[str]) -> None:
    numbers[group] += 1
    User.objects.create(username=f"{group}:{run}:{numbers[group]}")
    outbox.group_send(group, {"type": "t", "publisher": run, "group": group, "n": numbers[group]})


def main(run: str, *groups: str) -> None:
    numbers: Counter[str] = Counter()
    print("writes", flush=True)
    while True:
        try:
            write(list(groups), run, numbers)
        except Undone:
            pass
        except Error:
            connection.close()
            time.sleep(0.05)
        time.sleep(random.uniform(0, PAUSE))


if __name__ == "__main__":
    main(*sys.argv[1:])
