"""The Lua scripts of the layer: each does in one atomic round trip the work of several commands.

The head of each ``.lua`` file names its ``KEYS`` and ``ARGV``. All keys of a script share the hash tag of their shard,
so that the scripts run on a Redis Cluster too.

The files are read once, at import. A line ``-- include: name.lua`` stands for the code of that file, a fragment that
several scripts share. Redis gets the code only: lines that begin with ``--`` and empty lines are left out.

A script may be sent twice, when the answer to it was lost. Each one recognises that: by the number of the command, by a
token, or because the message is no longer pending for the worker that settles it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files

from ..connection import Argument

_FOLDER = files(__name__)
_INCLUDE = "-- include: "


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, called by the SHA-1 of its source."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", sha)

    def __call__(self, *keys: str | bytes, args: tuple[Argument, ...] = ()) -> tuple[Argument, ...]:
        """The command that runs the script."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    @property
    def load(self) -> tuple[Argument, ...]:
        """The command that loads the script into Redis."""
        return ("SCRIPT", "LOAD", self.source)


def _code(file: str) -> Iterator[str]:
    for line in (_FOLDER / file).read_text(encoding="utf-8").splitlines():
        if line.startswith(_INCLUDE):
            yield from _code(line.removeprefix(_INCLUDE))
        elif line.strip() and not line.lstrip().startswith("--"):
            yield line


def _script(name: str) -> Script:
    return Script("\n".join(_code(f"{name}.lua")))


# A process' inbox.
ATTACH_INBOX = _script("attach_inbox")
ACKNOWLEDGE_INBOX = _script("acknowledge_inbox")
EMPTY_INBOX = _script("empty_inbox")

# Groups and channels.
GROUP_ADD = _script("group_add")
GROUP_DISCARD = _script("group_discard")
GROUP_SEND = _script("group_send")
GROUP_KEEP = _script("group_keep")
HISTORY_RENEW = _script("history_renew")
HISTORY_EPOCH = _script("history_epoch")
PRESENCE_CHANGE = _script("presence_change")
PRESENCE_DEAD = _script("presence_dead")
PRESENCE_FORGET = _script("presence_forget")
SEND_TO_PROCESS = _script("send_to_process")
SEND_TO_NAMED = _script("send_to_named")
ACKNOWLEDGE_NAMED = _script("acknowledge_named")
LEAVE_NAMED = _script("leave_named")

# Workers: messages that are pending in the consumer group of a named channel.
WORK_DONE = _script("work_done")
WORK_RETRY = _script("work_retry")
WORK_BURY = _script("work_bury")
WORK_RENEW = _script("work_renew")
WORK_PENDING = _script("work_pending")
WORK_TAKE_OVER = _script("work_take_over")
WORK_LEAVE = _script("work_leave")
WORK_REQUEUE = _script("work_requeue")

WORK_SCRIPTS = (
    *(WORK_DONE, WORK_RETRY, WORK_BURY, WORK_RENEW),
    *(WORK_PENDING, WORK_TAKE_OVER, WORK_LEAVE, WORK_REQUEUE),
)
ALL_SCRIPTS = (
    *(ATTACH_INBOX, ACKNOWLEDGE_INBOX, EMPTY_INBOX, GROUP_ADD, GROUP_DISCARD, GROUP_SEND),
    *(GROUP_KEEP, HISTORY_RENEW, HISTORY_EPOCH),
    *(PRESENCE_CHANGE, PRESENCE_DEAD, PRESENCE_FORGET),
    *(SEND_TO_PROCESS, SEND_TO_NAMED, ACKNOWLEDGE_NAMED, LEAVE_NAMED),
    *WORK_SCRIPTS,
)
