"""A document that a command printed, checked by its own schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema

from parity.commands import layouts


def checked(text: str, name: str) -> dict[str, Any]:
    """Return a document that a command printed, after a check by its schema."""
    document: dict[str, Any] = json.loads(text)
    assert (document["document"], document["schema"]) == (name, layouts.SCHEMA)
    schema = layouts.schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    described = schema["$defs"][layouts.layout(name).__name__]["properties"]
    assert set(document) == set(described)
    return document
