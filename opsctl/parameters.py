"""A job's parameters as a person types them: JSON, checked before anything is queued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from opslib.errors import ConfigError
from opslib.redact import redact


def parse(model: type[BaseModel], text: str) -> BaseModel:
    """Check `text` against a job's parameters.

    Raises:
        ConfigError: Every error, each with its place; values are not repeated.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False, include_input=False)
        lines = [f"--params {_place(error['loc'])}: {redact(error['msg'])}" for error in errors]
        raise ConfigError("\n".join([*lines, f"it takes {_shape(model)}"])) from None


def _place(path: Sequence[int | str]) -> str:
    """As one would write it: `targets[2].bucket`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or "as a whole"


def _shape(model: type[BaseModel]) -> str:
    names = ", ".join(field["name"] for field in fields(model))
    return f"a JSON object of {names}" if names else "no parameters"


def fields(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Each parameter: its name, its type in words, its default (absent where it must be given) and what it means."""
    properties: Mapping[str, Any] = model.model_json_schema().get("properties", {})
    required = set(model.model_json_schema().get("required", ()))
    return [
        {
            "name": name,
            "type": _type(shape),
            **({} if name in required else {"default": shape.get("default")}),
            "meaning": shape.get("description", ""),
        }
        for name, shape in properties.items()
    ]


def _type(shape: Mapping[str, Any]) -> str:
    if "anyOf" in shape:
        return " or ".join(_type(each) for each in shape["anyOf"])
    if "enum" in shape:
        return " or ".join(map(str, shape["enum"]))
    if shape.get("type") == "array":
        return f"list of {_type(shape.get('items', {}))}"
    return str(shape.get("format") or shape.get("type") or shape.get("$ref", "any").rpartition("/")[2])
