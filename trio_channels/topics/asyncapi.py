"""Topics as an AsyncAPI 3 document."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast
from urllib.parse import quote

from .description import Described, Exchange, Schemas, schemas_of
from .frames import JOIN, REPLY

_ABOUT = (
    "Topics over the Phoenix Channels protocol, version 2. A message is the payload of a frame "
    "[join_ref, ref, topic, event, payload], where the topic is the address of the channel and the event the name of "
    "the message. A push with a ref has a reply."
)

_ERROR = {
    "name": REPLY,
    "title": "refused",
    "payload": {
        "type": "object",
        "properties": {"status": {"const": "error"}, "response": {}},
        "required": ["status", "response"],
    },
}


def document(described: Sequence[Described], title: str, version: str) -> dict[str, Any]:
    """The document, to be written as JSON. Raises ConfigurationError if a type has no schema."""
    schemas = schemas_of(described, "#/components/schemas/{name}")
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for each in described:
        messages = _messages(each, schemas)
        channels[each.name] = _channel(each, messages)
        operations |= _operations(each)
    whole = {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version, "description": _ABOUT},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"schemas": schemas.components, "messages": {"refused": _ERROR}},
    }
    return cast(dict[str, Any], draft_7(whole))


def _channel(described: Described, messages: dict[str, Any]) -> dict[str, Any]:
    pattern = described.pattern
    channel: dict[str, Any] = {"address": pattern.filled(lambda name: f"{{{name}}}"), "messages": messages}
    if about := inspect.cleandoc(vars(described.topic).get("__doc__") or ""):
        channel["description"] = about
    if pattern.arguments:
        channel["parameters"] = {name: {"description": kind} for name, kind in pattern.arguments.items()}
    if described.addresses:
        channel["x-sockets"] = described.addresses
    return channel


def _messages(described: Described, schemas: Schemas) -> dict[str, Any]:
    messages: dict[str, Any] = {"refused": {"$ref": "#/components/messages/refused"}}
    for event, exchange in _exchanges(described).items():
        messages[f"{event}.push"] = _message(event, exchange.payload, schemas.of)
        messages[f"{event}.reply"] = _reply(exchange, schemas)
    for event, kind in described.sends.items():
        messages[f"{event}.sent"] = _message(event, kind, schemas.sent)
    return messages


def _exchanges(described: Described) -> dict[str, Exchange]:
    return {JOIN: described.join, **described.pushes}


def _message(event: str, kind: Any, schema_of: Callable[[Any], Any]) -> dict[str, Any]:
    if kind is bytes:
        return {"name": event, "contentType": "application/octet-stream"}
    return {"name": event, "payload": schema_of(kind)}


def _reply(exchange: Exchange, schemas: Schemas) -> dict[str, Any]:
    if exchange.reply is bytes:
        return {"name": REPLY, "contentType": "application/octet-stream"}
    properties = {"status": {"const": "ok"}, "response": schemas.sent(exchange.reply)}
    payload: dict[str, Any] = {"type": "object", "properties": properties, "required": ["status", "response"]}
    if exchange.streams:
        payload["description"] = "Any number of replies with the status ok, then one with the status end."
        properties["status"] = {"enum": ["ok", "end"]}
    return {"name": REPLY, "payload": payload}


def _operations(described: Described) -> dict[str, Any]:
    channel = _ref("channels", described.name)
    operations: dict[str, Any] = {}

    def message(name: str) -> dict[str, str]:
        return _ref("channels", described.name, "messages", name)

    for event in _exchanges(described):
        operations[f"{described.name}.receive.{event}"] = {
            "action": "receive",
            "channel": channel,
            "messages": [message(f"{event}.push")],
            "reply": {"channel": channel, "messages": [message(f"{event}.reply"), message("refused")]},
        }
    for event in described.sends:
        operations[f"{described.name}.send.{event}"] = {
            "action": "send",
            "channel": channel,
            "messages": [message(f"{event}.sent")],
        }
    return operations


def draft_7(schema: Any) -> Any:
    """A JSON schema of the newest draft, as msgspec makes it, in the draft that AsyncAPI has."""
    if isinstance(schema, list):
        return [draft_7(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: draft_7(value) for key, value in schema.items()}
    if isinstance(discriminator := made.get("discriminator"), dict) and "propertyName" in discriminator:
        made["discriminator"] = discriminator["propertyName"]
    if isinstance(made.get("prefixItems"), list):
        made["additionalItems"] = made.get("items", True)
        made["items"] = made.pop("prefixItems")
    return made


def _ref(*path: str) -> dict[str, str]:
    escaped = (quote(part.replace("~", "~0").replace("/", "~1"), safe="~") for part in path)
    return {"$ref": f"#/{'/'.join(escaped)}"}
