"""The methods of a channel layer that check names, for code that was written for Channels' base class."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from ..exceptions import InvalidNameError
from . import names


class NameChecks:
    """Checks channel and group names by the rules of :mod:`trio_channels.layers.names`."""

    #: Names are shorter than this.
    MAX_NAME_LENGTH = names.MAX_NAME_LENGTH + 1
    #: The text for an error about a name, with a place for its kind.
    invalid_name_error = (
        f"{{}} name must be a str of 1 to {names.MAX_NAME_LENGTH} ASCII letters, digits, '-', '_' and '.'"
    )

    def require_valid_channel_name(self, name: object, receive: bool = False) -> bool:
        """Return True for a valid channel name, or raise InvalidNameError; `receive` has no effect."""
        if not names.is_channel_name(name):
            raise self._invalid("channel", name)
        return True

    def require_valid_group_name(self, name: object) -> bool:
        """Return True for a valid group name, or raise InvalidNameError."""
        if not names.is_group_name(name):
            raise self._invalid("group", name)
        return True

    def _invalid(self, kind: str, name: object) -> InvalidNameError:
        return InvalidNameError(f"{self.invalid_name_error.format(kind.capitalize())}; got {name!r}")

    def valid_channel_names(self, names: Iterable[object], receive: bool = False) -> bool:
        """As :meth:`require_valid_channel_name`, for several names."""
        return all(self.require_valid_channel_name(name, receive) for name in names)

    def valid_channel_name(self, name: object, receive: bool = False) -> bool:
        """The deprecated name of :meth:`require_valid_channel_name`."""
        _deprecated("valid_channel_name")
        return self.require_valid_channel_name(name, receive)

    def valid_group_name(self, name: object) -> bool:
        """The deprecated name of :meth:`require_valid_group_name`."""
        _deprecated("valid_group_name")
        return self.require_valid_group_name(name)

    def match_type_and_length(self, name: object) -> bool:
        """Whether a name is a str that is neither empty nor too long."""
        return isinstance(name, str) and 0 < len(name) < self.MAX_NAME_LENGTH

    def non_local_name(self, name: str) -> str:
        """The part of a channel name up to and with its ``!``: the name of its process; other names as they are."""
        before, mark, _ = name.partition("!")
        return before + mark


def _deprecated(name: str) -> None:
    warnings.warn(f"{name} is deprecated: call require_{name}()", DeprecationWarning, stacklevel=3)
