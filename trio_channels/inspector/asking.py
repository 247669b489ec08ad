"""Asking all processes what they do: over the channel layer, with a deadline.

The processes that are known have introduced themselves, by presence. Redis takes a process that is silent for 30
seconds for dead, and forgets it. One that this process has found silent before that, and that has not answered since,
is shown for :data:`MEMORY` seconds more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec
import trio

from .. import _conf
from .._orders import orders_layer
from ..exceptions import ChannelLayerUnavailable, InvalidChannelLayerError
from ..layers import InMemoryChannelLayer
from ..layers.base import ChannelLayer
from ..layers.message import Envelope
from ..layers.names import ORDERS
from .answering import ASK
from .queues import Queue, queues
from .report import Connection, Introduction, Question, Report, report

logger = logging.getLogger("trio_channels.inspector")

#: Seconds for which a silent process is remembered that Redis has forgotten.
MEMORY = 600.0


class Silent(msgspec.Struct, frozen=True):
    """A process that did not answer.

    Args:
        process: the process.
        lost: whether the channel layer does not know it any more.
    """

    process: Introduction
    lost: bool


class Overview(msgspec.Struct, frozen=True):
    """The answers of all processes.

    Args:
        reports: of the processes that have answered, the one that started first before others.
        silent: the processes that have not.
        queues: the named channels of workers.
        shared: whether other processes could be asked; otherwise it is only this one.
        problem: why processes may be missing; "" if nothing is known to be wrong.
    """

    reports: list[Report]
    silent: list[Silent]
    queues: list[Queue]
    shared: bool
    problem: str

    @property
    def connections(self) -> list[tuple[Introduction, Connection]]:
        """The connections of all processes."""
        return [(seen.process, row) for seen in self.reports for row in seen.connections]

    @property
    def found(self) -> int:
        """The number of connections that were asked for; not all may be among :attr:`connections`."""
        return sum(seen.found for seen in self.reports)

    @property
    def groups(self) -> list[tuple[str, str, int, int]]:
        """Layer, name, members and processes of each group, the largest first."""
        counts: dict[tuple[str, str], list[int]] = {}
        for seen in self.reports:
            for group in seen.groups:
                counts.setdefault((group.layer, group.name), []).append(group.members)
        rows = [(layer, name, sum(members), len(members)) for (layer, name), members in counts.items()]
        return sorted(rows, key=lambda row: (-row[2], row[1]))


#: Silent processes, and the Trio time at which they were last known.
_silent: trio.lowlevel.RunVar[dict[str, tuple[Introduction, float]]] = trio.lowlevel.RunVar("trio_channels silent")


async def overview(question: Question | None = None, channels: Iterable[str] = ()) -> Overview:
    """Ask every process, and wait until all have answered, or for ``INSPECTOR_TIMEOUT``.

    Args:
        question: which connections are wanted; by default all, ``INSPECTOR_CONNECTIONS`` of each process at most.
        channels: named channels of the default layer, whose messages are counted beside those of running workers.

    If the channel layer is away, it is this process alone, and ``problem`` says so. Cancellation: at any time.
    """
    if question is None:
        question = Question(rows=_conf.get("INSPECTOR_CONNECTIONS"))
    layer = orders_layer()
    if layer is None:
        return await _only_here(question, channels, "There is no channel layer: only this process is shown.")
    try:
        known, answers = await _ask(layer, question)
    except ChannelLayerUnavailable as error:  # it may name hosts and passwords
        logger.warning("the other processes cannot be asked: %s", error)
        return await _only_here(question, channels, "The channel layer is away: only this process is shown.")
    shared = not isinstance(layer, InMemoryChannelLayer)
    return Overview(
        reports=sorted(answers.values(), key=lambda seen: (seen.process.started, seen.process.run)),
        silent=_remember(known, answers),
        queues=await queues(answers.values(), channels),
        shared=shared,
        problem="" if shared else "The in-memory layer connects no processes: only this one is shown.",
    )


async def _only_here(question: Question, channels: Iterable[str], problem: str) -> Overview:
    here = await report(question)
    return Overview([here], [], await queues([here], channels), False, problem)


async def _ask(layer: ChannelLayer, question: Question) -> tuple[dict[str, Introduction], dict[str, Report]]:
    """The processes that are known, and the answers."""
    known = await _known(layer)
    answers: dict[str, Report] = {}
    complete = trio.Event()

    def offer(envelope: Envelope) -> bool:
        try:
            answer = msgspec.convert(envelope.message.get("report"), Report)
        except msgspec.ValidationError as error:  # of another version
            logger.warning("the answer of a process is malformed, and is ignored: %s", error)
            return True
        answers[answer.process.run] = answer
        if known and known.keys() <= answers.keys():
            complete.set()
        return True

    with layer.open_mailbox(offer=offer, prefix="inspector") as mailbox:
        order = {"type": ASK, "reply": mailbox.name, "question": msgspec.to_builtins(question)}
        await layer.group_send(ORDERS, order)
        with trio.move_on_after(_conf.get("INSPECTOR_TIMEOUT")):
            await complete.wait()
    return known, answers


async def _known(layer: ChannelLayer) -> dict[str, Introduction]:
    try:
        state = await layer.presence(ORDERS)
    except InvalidChannelLayerError:
        return {}  # a layer without presence: who does not answer is not known
    known: dict[str, Introduction] = {}
    for run, metas in state.items():
        try:
            known[run] = msgspec.convert(metas[0], Introduction)
        except msgspec.ValidationError as error:
            logger.warning("a process has introduced itself in an unknown way, and is ignored: %s", error)
    return known


def _remember(known: dict[str, Introduction], answers: dict[str, Report]) -> list[Silent]:
    """The processes that are silent, also those that only this one remembers."""
    now = trio.current_time()
    before = _silent.get({})
    silent = {
        run: (process, last_known)
        for run, (process, last_known) in before.items()
        if run not in answers and now - last_known < MEMORY
    }
    silent |= {run: (process, now) for run, process in known.items() if run not in answers}
    _silent.set(silent)
    return [Silent(process, lost=run not in known) for run, (process, _) in sorted(silent.items())]
