"""The AsyncAPI 3.0 document of a pipeline: its topics, and JSON Schemas that the records on them fit.

https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from thalweg.dataflows.pipeline import Pipeline
from thalweg.engine.definition import Definition
from thalweg.engine.learning import Member
from thalweg.engine.schema import LIMIT, Field, Schema

JsonSchema = dict[str, Any]

TEXT: JsonSchema = {"type": "string"}
NUMBER: JsonSchema = {"type": "number"}
COUNT: JsonSchema = {"type": "integer", "minimum": 0}
HASH: JsonSchema = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
TIME: JsonSchema = {"type": "string", "format": "date-time"}
_TYPES: dict[str, JsonSchema] = {
    "str": TEXT,
    "f64": {"type": "number", "minimum": -LIMIT, "maximum": LIMIT},
    "i64": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "bool": {"type": "boolean"},
}
_LABEL_TYPES: dict[str, JsonSchema] = {
    "bool": {"type": "boolean"},
    "str": TEXT,
    "i64": {"type": "integer"},
    "f64": NUMBER,
}


def document(pipeline: Pipeline) -> dict[str, Any]:
    """The document as nested dicts; :func:`text` gives it as JSON, which is YAML, too."""
    definition = pipeline.definition
    messages = _inputs(definition) | _outputs(pipeline)
    channels = {
        name: {
            "address": address,
            "description": message["description"],
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
            "bindings": {"kafka": {"topic": address}},
        }
        for name, (address, message) in messages.items()
    }
    inputs = _inputs(definition)
    operations = {
        f"{'read' if name in inputs else 'write'}_{name}": {
            "action": "receive" if name in inputs else "send",
            "channel": {"$ref": f"#/channels/{name}"},
            "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
        }
        for name in messages
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": pipeline.name,
            "version": definition.fingerprint,
            "description": "The version is the fingerprint of the definition: what decides what a prediction is.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": {name: message for name, (_, message) in messages.items()}},
    }


def text(pipeline: Pipeline) -> str:
    """The document as JSON."""
    return orjson.dumps(document(pipeline), option=orjson.OPT_INDENT_2).decode()


def _inputs(definition: Definition) -> dict[str, tuple[str, dict[str, Any]]]:
    stream, label = definition.stream, definition.label
    key = fields_schema(Schema((stream.schema[stream.key],)))["properties"][stream.key]
    of_events = f"The events; the record's key is the field {stream.key!r}, event time is {stream.time!r}."
    found = {"events": (stream.topic, _input(of_events, stream.schema, stream.codec, key))}
    if label is not None and label.own_topic:
        of_labels = f"The labels, joined to events on {label.on!r}; the label is {label.value.canonical}."
        found["labels"] = (label.topic, _input(of_labels, label.schema, label.codec, None))
    return found


def _input(description: str, schema: Schema, codec: str, key: JsonSchema | None) -> dict[str, Any]:
    message: dict[str, Any] = {"description": description, "payload": fields_schema(schema)}
    if codec == "arrow":
        message["description"] += " A message is an Arrow IPC stream of rows; the payload describes one row."
        message["contentType"] = "application/vnd.apache.arrow.stream"
    if key is not None:
        message["bindings"] = {"kafka": {"key": key}}
    return message


def fields_schema(schema: Schema) -> JsonSchema:
    """An object with these fields; others are ignored, so they are allowed."""
    properties = {field.name: _field(field) for field in schema.fields}
    required = [field.name for field in schema.fields if not field.nullable]
    return {"type": "object", "properties": properties, "required": required}


def _field(field: Field) -> JsonSchema:
    if field.type == "timestamp":
        whole: JsonSchema = {"type": "integer", "minimum": 0, "description": f"{field.unit} since 1970 in UTC"}
        return {"anyOf": [TIME, whole, *([{"type": "null"}] if field.nullable else [])]}
    return _or_null(_TYPES[field.type]) if field.nullable else _TYPES[field.type]


def _outputs(pipeline: Pipeline) -> dict[str, tuple[str, dict[str, Any]]]:
    definition = pipeline.definition
    told: dict[str, tuple[str, JsonSchema]] = {
        "predictions": ("One record for each row that asks for a prediction.", prediction_schema(definition)),
        "journal": ("What each shard read, and in which order: one record a step.", journal_schema()),
    }
    if definition.models:
        told["metrics"] = ("One record a model, every so many predictions of a shard.", metrics_schema(definition))
    if definition.drift:
        told["alarms"] = ("What a drift detector found, and the row that caused it.", alarm_schema())
    key = _key(definition)
    found = {
        kind: (pipeline.topics[kind], {"description": what, "payload": payload, "bindings": {"kafka": {"key": key}}})
        for kind, (what, payload) in told.items()
    }
    found["dlq"] = (pipeline.topics["dlq"], _dead_letter())
    return found


def _key(definition: Definition) -> JsonSchema:
    return {"type": "string", "description": f"the source's key, {definition.stream.key!r}"}


def prediction_schema(definition: Definition) -> JsonSchema:
    """A record on the predictions topic."""
    stream, label = definition.stream, definition.label
    event_id = TEXT if label is None else {"anyOf": [TEXT, _output_field(stream.schema[label.on])]}
    properties: dict[str, JsonSchema] = {
        "id": TEXT | {"description": "predictions/topic/partition/offset/model/version"},
        "event_id": event_id,
        "key": _output_field(stream.schema[stream.key]),
        "time": TIME,
    }
    required = [*properties, "features", "vector_hash", "cold"]
    members = definition.open_members()
    if members:
        scores = _scores(definition, members)
        properties |= scores
        required += [name for name in scores if name not in ("degraded",)]
    properties |= {"features": HASH | {"description": "fingerprint of the feature set"}, "vector_hash": HASH}
    properties["cold"] = {"type": "boolean", "description": "a window has not passed yet since the start"}
    properties["late"] = {"const": True, "description": "answered as of the watermark; not learned"}
    if definition.carry:
        properties["carry"] = _closed({name: _output_field(stream.schema[name]) for name in definition.carry})
        required.append("carry")
    if definition.vector:
        features = definition.features.features
        properties["vector"] = _closed({f.name: _or_null(TEXT if f.is_text else NUMBER) for f in features})
        required.append("vector")
    return _closed(properties, required)


def _scores(definition: Definition, members: Sequence[Member]) -> dict[str, JsonSchema]:
    decision = TEXT if definition.label is None else _LABEL_TYPES[definition.label.value_type]
    properties: dict[str, JsonSchema] = {"score": _score(members[0]), "decision": _or_null(decision)}
    if definition.threshold is not None:
        properties["threshold"] = {"const": definition.threshold, "description": "a higher score is decided true"}
    properties |= {"model": {"const": members[0].name}, "version": {"const": members[0].version}}
    properties["learned"] = COUNT | {"description": "labels learned before this prediction"}
    properties["degraded"] = {"const": True, "description": "the model failed; an earlier state answered"}
    if len(members) > 1:
        properties["others"] = _closed({member.name: _score(member) for member in members[1:]})
    return properties


def _score(member: Member) -> JsonSchema:
    if member.task == "multiclass":
        return _or_null({"type": "object", "additionalProperties": NUMBER})
    if member.task == "binary":
        return _or_null({"type": "number", "minimum": 0, "maximum": 1})
    return _or_null(NUMBER)


def metrics_schema(definition: Definition) -> JsonSchema:
    """A record on the metrics topic; beside the named fields it holds the metrics of its task."""
    members = definition.open_members()
    properties: dict[str, JsonSchema] = {
        "id": TEXT,
        "time": TIME,
        "predictions": COUNT,
        "model": {"enum": [member.name for member in members]},
        "version": {"enum": [member.version for member in members]},
        "task": {"enum": sorted({member.task for member in members})},
        "learned": COUNT,
        "failures": COUNT,
        "by_prediction": _or_null({"type": "object"}),
        "counters": {"type": "object", "additionalProperties": COUNT},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def alarm_schema() -> JsonSchema:
    """A record on the alarms topic."""
    properties: dict[str, JsonSchema] = {
        "id": TEXT,
        "cause": _closed({"topic": TEXT, "partition": COUNT, "offset": COUNT}),
        "model": TEXT,
        "version": HASH,
        "detector": TEXT,
        "detector_version": HASH,
        "signal": {"enum": ["error"]},
        "error": NUMBER,
        "statistics": {"type": "object", "additionalProperties": NUMBER},
    }
    return _closed(properties)


def journal_schema() -> JsonSchema:
    """A record on the journal topic; offsets are the log's."""
    extent = {"type": "array", "minItems": 4, "maxItems": 4, "description": "topic, partition, first, last offset"}
    place = {"type": "array", "minItems": 3, "maxItems": 3, "description": "topic, partition, offset"}
    properties: dict[str, JsonSchema] = {
        "id": TEXT,
        "shard": COUNT,
        "number": COUNT,
        "read_at": {"type": "integer", "description": "microseconds since 1970 in UTC"},
        "reads": {"type": "array", "items": extent},
        "start": {"type": "array", "items": place},
        "counters": {"type": "object", "additionalProperties": COUNT},
    }
    return _closed(properties, ["id", "shard", "number", "read_at", "reads"])


def dead_letter_headers() -> JsonSchema:
    """The headers of a dead letter, beside those that the message had."""
    properties: dict[str, JsonSchema] = {
        "thalweg.id": TEXT,
        "thalweg.reason": TEXT | {"description": "one word, such as malformed_json, type, late, future"},
        "thalweg.detail": TEXT,
        "thalweg.topic": TEXT,
        "thalweg.partition": {"type": "string", "pattern": "^[0-9]+$"},
        "thalweg.offset": {"type": "string", "pattern": "^[0-9]+$"},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _dead_letter() -> dict[str, Any]:
    return {
        "description": "A message that was refused, its bytes, key and headers as they came.",
        "contentType": "application/octet-stream",
        "headers": dead_letter_headers(),
        "payload": {"description": "the bytes as they came"},
    }


def _closed(properties: Mapping[str, JsonSchema], required: Sequence[str] | None = None) -> JsonSchema:
    """An object with these fields and no other."""
    needed = list(properties) if required is None else list(required)
    return {
        "type": "object",
        "properties": dict(properties),
        "required": needed,
        "additionalProperties": False,
    }


def _or_null(schema: JsonSchema) -> JsonSchema:
    return {"anyOf": [schema, {"type": "null"}]}


def _output_field(field: Field) -> JsonSchema:
    schema = TIME if field.type == "timestamp" else _TYPES[field.type]
    return _or_null(schema) if field.nullable else schema
