"""Feature flags as the file declares them: read strictly, with every error at its place, all or nothing.

The format is described at the head of `flags/flags.yaml`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic import ValidationError as PydanticError

from opslib.errors import ConfigError

MAX_BYTES = 1024 * 1024
"""A flag file above this is another file."""

KEY = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
"""What the application's table can hold, and a label may show."""

EVERYBODY = 100


class Scope(StrEnum):
    """What a rollout is counted in."""

    GLOBAL = "global"
    VENDOR = "vendor"
    USER = "user"


Line = Annotated[str, Field(min_length=1, max_length=300)]


class Flag(BaseModel):
    """One flag as declared; the meaning of each field stands at the head of `flags/flags.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    key: Annotated[str, Field(pattern=KEY)]
    enabled: bool
    description: Line
    category: Annotated[str, Field(min_length=1, max_length=50)]
    owner: Annotated[str, Field(min_length=1, max_length=100)]
    expiry: date | None = None
    scope: Annotated[Scope, Field(strict=False)] = Scope.GLOBAL
    rollout: Annotated[int, Field(ge=0, le=EVERYBODY)] = EVERYBODY
    enforce: bool = False

    @property
    def plain(self) -> bool | None:
        """What a plain on-or-off switch must say; None if some have it and some have not."""
        if not self.enabled or self.rollout == 0:
            return False
        return True if self.rollout == EVERYBODY else None

    def expired(self, today: date) -> bool:
        """Whether its last day is over."""
        return self.expiry is not None and self.expiry < today


class FlagFileError(ConfigError):
    """The flag file cannot be used, and nothing in it is.

    Attributes:
        errors: Each thing that is wrong, with its place.
    """

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class FlagFile:
    """A whole, valid file.

    Attributes:
        flags: By key, in the file's order.
        checksum: The sha256 of its text, in hex.
    """

    flags: Mapping[str, Flag]
    checksum: str


def load(path: Path) -> FlagFile:
    """Read the file.

    Raises:
        FlagFileError: One line for each thing that is wrong.
    """
    try:
        content = path.read_bytes()
        text = content.decode()
    except UnicodeDecodeError:
        raise FlagFileError([f"{path}: not UTF-8 text; is it the right file?"]) from None
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "no valid path"
        raise FlagFileError([f"{path}: cannot be read ({reason}); check OPS_FLAGS_FILE and its permissions"]) from None
    if len(content) > MAX_BYTES:
        raise FlagFileError([f"{path}: more than {MAX_BYTES} bytes; is it the right file?"])
    errors: list[str] = []
    flags = {flag.key: flag for flag in _flags(path, text, errors)}
    if errors:
        raise FlagFileError(errors)
    return FlagFile(flags, hashlib.sha256(content).hexdigest())


def _flags(path: Path, text: str, errors: list[str]) -> Iterator[Flag]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        errors.append(f"{path}{f':{mark.line + 1}' if mark else ''}: not valid YAML")
        return
    top = dict(_entries(path, root, errors, "the file")) if root is not None else {}
    for name, (place, _) in top.items():
        if name != "flags":
            errors.append(f"{place}: the file holds `flags:` and nothing else")
    if "flags" not in top:
        errors.append(f"{path}: no `flags:` in it; an empty list is written `flags: {{}}`")
        return
    for key, (place, node) in _entries(path, top["flags"][1], errors, "flags"):
        yield from _flag(path, key, place, node, errors)


def _flag(path: Path, key: str, place: str, node: yaml.Node, errors: list[str]) -> Iterator[Flag]:
    known = len(errors)
    places: dict[str, str] = {"key": place}
    values: dict[str, Any] = {"key": key}
    for name, (where, value) in _entries(path, node, errors, key):
        places[name] = where
        if name == "key":
            errors.append(f"{where}: {key}.key: the name before the colon is the key")
        elif not isinstance(value, yaml.ScalarNode):
            errors.append(f"{where}: {key}.{name}: takes one value, not a list or a mapping")
        else:
            try:
                values[name] = yaml.SafeLoader("").construct_object(value)
            except (yaml.YAMLError, ValueError):
                errors.append(f"{where}: {key}.{name}: cannot be read; put it in quotes if it is text")
    if len(errors) > known:
        return
    try:
        flag = Flag.model_validate(values)
    except PydanticError as exc:
        for error in exc.errors(include_url=False, include_input=False, include_context=False):
            field = str(error["loc"][0])
            errors.append(f"{places.get(field, place)}: {key}.{field}: {_lower(error['msg'])}")
        return
    if flag.scope is Scope.GLOBAL and flag.rollout != EVERYBODY:
        errors.append(f"{places['rollout']}: {key}.rollout: a partial rollout needs `scope: user` or `scope: vendor`")
        return
    yield flag


def _entries(path: Path, node: yaml.Node, errors: list[str], what: str) -> Iterator[tuple[str, tuple[str, yaml.Node]]]:
    """Name, place and value of each entry of a mapping. Nodes, not objects: YAML would let the last of two win."""
    if not isinstance(node, yaml.MappingNode):
        errors.append(f"{path}:{node.start_mark.line + 1}: {what}: write `name: value` lines")
        return
    seen: set[str] = set()
    for key, value in node.value:
        place = f"{path}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            errors.append(f"{place}: {what}: a name is plain text")
        elif key.value in seen:
            errors.append(f"{place}: {what}: {key.value} is written twice")
        else:
            seen.add(key.value)
            yield key.value, (place, value)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
