"""The tables of the in-memory layer, as Channels has them: code and tests for Channels read them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .. import names
from ..local import LocalDelivery
from ..ownerless import OwnerlessMailbox


class Tables(LocalDelivery):
    """Read-only copies of a layer's tables, of all Trio runs of the process: a change would change nothing."""

    @property
    def channels(self) -> Mapping[str, int]:
        """Channel name -> messages that wait there: the channels of connections and subscribers, and others in use.

        A read-only copy, for tests and for a shell; :meth:`statistics` counts without one.
        """
        return MappingProxyType(
            {
                mailbox.name: mailbox.statistics().waiting
                for hub in self._all_hubs()
                for mailbox in list(hub.mailboxes.values())
                if names.ORDERS not in mailbox.groups and (not isinstance(mailbox, OwnerlessMailbox) or mailbox.is_used)
            }
        )

    @property
    def groups(self) -> Mapping[str, Mapping[str, int]]:
        """Group name -> its members' channel names -> messages that wait there. A copy, as :attr:`channels`."""
        groups: dict[str, dict[str, int]] = {}
        for hub in self._all_hubs():
            for group, members in list(hub.groups.items()):
                if names.is_public(group):
                    waiting = {name: mailbox.statistics().waiting for name, mailbox in list(members.items())}
                    groups.setdefault(group, {}).update(waiting)
        return MappingProxyType({group: MappingProxyType(members) for group, members in groups.items()})
