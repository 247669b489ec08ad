"""Options of a channel layer that give a value for each pattern of a name."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from .._limits import Rule
from ..exceptions import InvalidChannelLayerError

T = TypeVar("T")

_PATTERN = Rule(
    "a glob or compiled expression of str",
    lambda value: isinstance(value.pattern if isinstance(value, re.Pattern) else value, str),
)


class Patterns(Generic[T]):
    """An option with a value for each pattern; the first pattern that matches a name counts.

    Args:
        option: its name, for error messages.
        given: glob or compiled expression -> value.
        convert: checks a value, and returns it as it is used; called with the name of its place, and the value.

    Raises:
        InvalidChannelLayerError: a pattern or a value is wrong.
    """

    def __init__(
        self, option: str, given: Mapping[str | re.Pattern[str], Any] | None, convert: Callable[[str, Any], T]
    ) -> None:
        rows = {} if given is None else given
        require(Rule("a dict of pattern and value", lambda value: isinstance(value, Mapping)), option, rows)
        self._rows: list[tuple[re.Pattern[str], T]] = []
        for pattern, value in rows.items():
            require(_PATTERN, f"a key of {option}", pattern)
            compiled = re.compile(fnmatch.translate(pattern)) if isinstance(pattern, str) else pattern
            self._rows.append((compiled, convert(f"{option}[{pattern!r}]", value)))

    def __repr__(self) -> str:
        return f"<Patterns {[pattern.pattern for pattern, _ in self._rows]}>"

    def __bool__(self) -> bool:
        return bool(self._rows)

    def find(self, name: str) -> T | None:
        """The value for a name, or None."""
        for pattern, value in self._rows:
            if pattern.match(name):
                return value
        return None


def require(rule: Rule, name: str, value: object) -> None:
    """Raise InvalidChannelLayerError unless an argument of a channel layer is valid."""
    rule.require(f"{name} of a channel layer", value, InvalidChannelLayerError)
