"""The types of payloads, from the annotations of handlers; the error that tells a client where its payload differs."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from ..exceptions import ConfigurationError

_ANYTHING = (inspect.Parameter.empty, Any, object)


class InvalidPayload(ValueError):
    """A client's payload does not fit the type of its handler.

    Args:
        message: what was expected, and what came.
        at: the place in the payload, such as ``$.text``.
    """

    def __init__(self, message: str, at: str = "$") -> None:
        super().__init__(message, at)
        self.response = {"reason": "invalid payload", "message": message, "at": at}


class PayloadType:
    """The type of one handler's payload.

    Args:
        annotation: a type that msgspec decodes; ``bytes`` for binary payloads; ``Any`` or none for both forms.
        place: the handler, for the error message.

    Raises:
        ConfigurationError: no payload can be decoded to this type.
    """

    __slots__ = ("_decoder", "_takes_bytes", "_takes_json")

    _decoder: msgspec.json.Decoder[Any]

    def __init__(self, annotation: Any, place: str) -> None:
        anything = any(annotation is each for each in _ANYTHING)
        self._takes_bytes = anything or annotation is bytes
        self._takes_json = annotation is not bytes
        try:
            if isinstance(msgspec.inspect.type_info(Any if anything else annotation), msgspec.inspect.CustomType):
                raise TypeError("it is a class that msgspec does not know")
            self._decoder = msgspec.json.Decoder(Any if anything else annotation)
        except TypeError as error:
            raise ConfigurationError(
                f"the payload of {place} must be a dict, a msgspec.Struct, bytes or another type that msgspec decodes; "
                f"got {annotation!r}: {error}"
            ) from error

    def decode(self, payload: msgspec.Raw | bytes) -> Any:
        """Decode a payload; raises InvalidPayload."""
        given: object = payload  # msgspec's types take a Raw for bytes
        if isinstance(given, bytes):
            if self._takes_bytes:
                return given
            raise InvalidPayload("Expected JSON, got a binary payload")
        if not self._takes_json:
            raise InvalidPayload("Expected a binary payload, got JSON")
        try:
            return self._decoder.decode(payload)
        except msgspec.ValidationError as error:
            message, _, at = str(error).partition(" - at `")
            raise InvalidPayload(message, at.replace("`", "") or "$") from None
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidPayload(f"Expected JSON: {error}") from None
