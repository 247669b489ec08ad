"""Options of channels_redis and redis-py that this layer does not need: they are ignored, and a warning says why.

Methods of channels_redis that subclasses override are refused: they would never be called.

An option is here only if leaving it out changes nothing but resources and time limits. Options about the place, the
login or TLS are honoured or refused.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ...exceptions import InvalidChannelLayerError

logger = logging.getLogger("trio_channels.layers.redis")

_TIME_LIMIT = "the layer's timeout limits every call, and its connections"
_DEAD_CONNECTIONS = "the layer notices a dead connection by itself, within its timeout"
_SENT_AGAIN = "the layer sends a command again for as long as its caller waits"
_CONNECTIONS = "the layer has two connections for each server and process"
_FORMAT = "the layer encodes its messages itself"
_NAMES = "the layer gives its connections no names"

#: The option of an entry of ``hosts`` -> why it has no effect.
HOST_OPTIONS = {
    "socket_timeout": _TIME_LIMIT,
    "socket_connect_timeout": _TIME_LIMIT,
    "timeout": _TIME_LIMIT,
    "socket_keepalive": _DEAD_CONNECTIONS,
    "socket_keepalive_options": _DEAD_CONNECTIONS,
    "health_check_interval": _DEAD_CONNECTIONS,
    "retry_on_timeout": _SENT_AGAIN,
    "retry_on_error": _SENT_AGAIN,
    "retry": _SENT_AGAIN,
    "max_connections": _CONNECTIONS,
    "connection_class": _CONNECTIONS,
    "single_connection_client": _CONNECTIONS,
    "auto_close_connection_pool": _CONNECTIONS,
    "socket_read_size": _CONNECTIONS,
    "socket_type": _CONNECTIONS,
    "decode_responses": _FORMAT,
    "encoding": _FORMAT,
    "encoding_errors": _FORMAT,
    "protocol": _FORMAT,
    "parser_class": _FORMAT,
    "client_name": _NAMES,
    "lib_name": _NAMES,
    "lib_version": _NAMES,
}

#: The option of channels_redis in ``CONFIG`` -> why it has no effect.
LAYER_OPTIONS = {
    "random_prefix_length": "the name of a process always has 64 random bits",
    "on_disconnect": "the log, shard_statistics() and the health check tell of an outage",
    "on_reconnect": "the log, shard_statistics() and the health check tell of its end",
}


def without_ignored(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of ``hosts`` without the options that have no effect; warns of each."""
    for key in entry:
        if key in HOST_OPTIONS:
            _warn("an entry of hosts", key, HOST_OPTIONS[key])
    return {key: value for key, value in entry.items() if key not in HOST_OPTIONS}


def warn_of_options(**given: object) -> None:
    """Warn of each option of channels_redis that was given a value."""
    for key, value in given.items():
        if value is not None:
            _warn("the Redis channel layer", key, LAYER_OPTIONS[key])


def refuse_hooks(cls: type) -> None:
    """Refuse a subclass of the layer that brings a format of its own.

    Raises:
        InvalidChannelLayerError: it has the method ``serialize`` or ``deserialize``.
    """
    for name in ("serialize", "deserialize"):
        if hasattr(cls, name):  # also from a class beside the layer
            raise InvalidChannelLayerError(
                f"{cls.__qualname__}.{name}() would never be called: all processes must read one format. Choose it "
                f"with the option serializer_format, and remove the method"
            )


def _warn(where: str, key: str, reason: str) -> None:
    logger.warning("%s: %s is ignored: %s. Remove it", where, key, reason)
