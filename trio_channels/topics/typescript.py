"""Topics as TypeScript types."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .description import Described, Exchange, Schemas, schemas_of

_HEAD = '// Made by "manage.py topics --typescript" from the annotations of the topics: changes here are lost.'
_REF = "{name}"
_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*", re.ASCII)
_SIMPLE = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}
#: The converters of patterns whose arguments are numbers.
_NUMBERS = ("int",)


def declarations(described: Sequence[Described]) -> str:
    """The content of a module. Raises ConfigurationError if a type has no schema."""
    schemas = schemas_of(described, _REF)
    parts = [_HEAD, *(_named(name, schema) for name, schema in schemas.components.items())]
    topics = "\n".join(_indent(f"{_key(each.name)}: {_topic(each, schemas)};") for each in described)
    parts.append(f"/** The topics, by the names of their classes. */\nexport interface Topics {_braces(topics)}")
    return "\n\n".join(parts) + "\n"


def _topic(described: Described, schemas: Schemas) -> str:
    lines = [
        f"topic: {_name_of_topic(described)};",
        f"params: {_type(described.join.payload, schemas.of)};",
        f"joined: {_type(described.join.reply, schemas.sent)};",
        f"pushes: {_braces(_indent(_lines(_pushes(described.pushes, schemas))))};",
        f"events: {_braces(_indent(_lines(_events(described.sends, schemas))))};",
    ]
    return _braces(_indent("\n".join(lines)))


def _pushes(pushes: Mapping[str, Exchange], schemas: Schemas) -> Iterator[str]:
    for event, exchange in pushes.items():
        replies = "replies" if exchange.streams else "reply"
        payload, reply = _type(exchange.payload, schemas.of), _type(exchange.reply, schemas.sent)
        yield f"{_key(event)}: {{ payload: {payload}; {replies}: {reply} }};"


def _events(sends: Mapping[str, Any], schemas: Schemas) -> Iterator[str]:
    for event, kind in sends.items():
        yield f"{_key(event)}: {_type(kind, schemas.sent)};"


def _name_of_topic(described: Described) -> str:
    pattern = described.pattern
    kinds = pattern.arguments
    if not kinds:
        return json.dumps(pattern.text)
    parts = re.split(r"\0(.*?)\0", pattern.filled(lambda name: f"\0{name}\0"))
    texts = [re.sub(r"[`\\]|\$(?={)", r"\\\g<0>", part) for part in parts[::2]]
    holes = [f"${{{'number' if kinds[name] in _NUMBERS else 'string'}}}" for name in parts[1::2]]
    return "`" + "".join(text + hole for text, hole in zip(texts, [*holes, ""], strict=True)) + "`"


def _type(kind: Any, schema_of: Callable[[Any], Any]) -> str:
    return "ArrayBuffer" if kind is bytes else _of(schema_of(kind))


def _named(name: str, schema: Mapping[str, Any]) -> str:
    about = inspect.cleandoc(schema.get("description", ""))
    comment = _comment(about) + "\n" if about else ""
    if "properties" in schema:
        return f"{comment}export interface {_identifier(name)} {_object(schema)}"
    return f"{comment}export type {_identifier(name)} = {_of(schema)};"


def _comment(text: str) -> str:
    lines = text.replace("*/", "* /").splitlines()
    return (
        f"/** {lines[0]} */"
        if len(lines) == 1
        else "\n".join(["/**", *(f" * {line}".rstrip() for line in lines), " */"])
    )


def _of(schema: Mapping[str, Any]) -> str:
    """The type of a JSON schema, as msgspec makes them."""
    if "$ref" in schema:
        return _identifier(schema["$ref"])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_of(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(map(json.dumps, schema["enum"]))
    kind = schema.get("type")
    if kind == "array":
        return _array(schema)
    if kind == "object":
        return _object(schema)
    return _SIMPLE.get(kind or "", "unknown")


def _array(schema: Mapping[str, Any]) -> str:
    if "prefixItems" not in schema:
        return f"Array<{_of(schema.get('items') or {})}>"
    least = schema.get("minItems", 0)
    items = [_of(each) for each in schema["prefixItems"]]
    fields = [item if number < least else f"({item})?" for number, item in enumerate(items)]
    rest = schema.get("items")
    return f"[{', '.join([*fields, *([] if not rest else [f'...Array<{_of(rest)}>'])])}]"


def _object(schema: Mapping[str, Any]) -> str:
    properties = schema.get("properties")
    if properties is None:
        values = schema.get("additionalProperties")
        return f"Record<string, {_of(values) if isinstance(values, Mapping) else 'unknown'}>"
    if not properties:
        return "Record<string, never>"
    required = schema.get("required", ())
    fields = (f"{_key(name)}{'' if name in required else '?'}: {_of(each)};" for name, each in properties.items())
    return _braces(_indent(_lines(fields)))


def _key(name: str) -> str:
    return name if _IDENTIFIER.fullmatch(name) else json.dumps(name)


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))


def _braces(content: str) -> str:
    return f"{{\n{content}\n}}" if content.strip() else "Record<string, never>"
