"""Strict reading: frozen types, YAML without traps, and complaints in one line.

Refused are unknown and duplicate keys, wrong types, aliases, and numbers that YAML takes for
text. Types are pydantic models in strict mode; YAML is passed to them as JSON, where a list may
become a tuple and an integer a float, but never a text a number.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, Tag, ValidationError

from pretune.errors import StudyError

Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys, which PyYAML would let win silently, and aliases,
    which can explode.
    """

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(
                None, None, "aliases are refused", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key.value!r}", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(file: Path, shown: str) -> object:
    """What the file says; `shown` is its name in complaints. Raises StudyError where it is not
    readable as YAML.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        if "for the tag '!function'" in str(error):
            error = f"functions are refused, `!function` in line {error.problem_mark.line + 1}"
        raise StudyError(f"{shown}: not readable as YAML: {' '.join(str(error).split())}") from None


def override(raw: dict, text: str) -> None:
    """Set what a text `a.b=value` says, in place."""
    key, equals, value = text.partition("=")
    if not equals:
        raise StudyError(f"--set {text}: must be KEY=VALUE, for example tuning.seeds=3")
    *parents, last = key.split(".")
    for parent in parents:
        raw = raw.setdefault(parent, {}) if isinstance(raw, dict) else raw
    if not isinstance(raw, dict):
        raise StudyError(f"--set {text}: {'.'.join(parents)} holds no keys")
    try:
        raw[last] = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        raise StudyError(f"--set {text}: {value!r} is not a YAML value") from None


def explain(file: str, error: ValidationError, root: type[BaseModel]) -> str:
    """All complaints, a line each: file, key, value, what is allowed. Of a key and what is in it
    the first is told; what is missing, where nothing else is wrong, which may explain it.
    """
    errors, lines = error.errors(), {}
    for one in [one for one in errors if one["type"] != "missing"] or errors:
        model, place = _at(root, one["loc"])
        if not any(_nested(place, other) for other in lines):
            lines[tuple(place)] = _complaint(file, model, place, one)
    return "\n".join(lines.values())


def _nested(place: Sequence[str], other: Sequence[str]) -> bool:
    """Whether one of two places of a file lies in the other."""
    return all(one == two for one, two in zip(place, other, strict=False))


def _complaint(file: str, model: type[BaseModel], place: list[str], error: dict) -> str:
    key, value = ".".join(place) or "the whole", error["input"]
    told = json.dumps(value, ensure_ascii=False) if not isinstance(value, dict) else "{...}"
    if error["type"] == "extra_forbidden":
        allowed = keys(model)
        near = difflib.get_close_matches(place[-1], allowed, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{file}: {key}: unknown key; {hint}allowed: {', '.join(allowed)}"
    if error["type"] == "missing":
        return f"{file}: {key}: missing; it must be given"
    hint = ""
    if isinstance(value, str) and error["type"] in ("float_type", "int_type"):
        hint = (
            " (YAML reads it as text: write 2.0e-6, not 2e-6)"
            if "e" in value.lower()
            else " (it is text)"
        )
    message = error["msg"].removeprefix("Value error, ")
    return f"{file}: {key}: {told} is refused; {message[0].lower()}{message[1:]}{hint}"


def _at(root: type[BaseModel], loc: tuple) -> tuple[Any, list[str]]:
    """The innermost model on the path that pydantic reports, and the path as a file has it: a tag
    that says which type of a union was read stands in no file.
    """
    model, inner, place = root, root, []
    for part in loc:
        options = _options(inner)
        tagged = [one for tag, one in options if tag == part]
        if tagged and len(options) > 1:
            inner = tagged[0]
        else:
            place.append(str(part))
            inside = [_inside(part, one) for _, one in options]
            inner = next((one for one in inside if one), None)
        model = next((one for _, one in _options(inner) if hasattr(one, "model_fields")), model)
    return model, place


def _options(kind: Any) -> list[tuple[str, Any]]:
    """The types that a type stands for, those of a union one by one, each with its tag: as it is
    given, or the one word that one of its keys may hold.
    """
    if get_origin(kind) is Annotated:
        said = [one.tag for one in get_args(kind)[1:] if isinstance(one, Tag)]
        return [(said[0], get_args(kind)[0])] if said else _options(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return list(chain.from_iterable(map(_options, get_args(kind))))
    fields = getattr(kind, "model_fields", {}).values()
    words = [get_args(one.annotation) for one in fields if get_origin(one.annotation) is Literal]
    single = next((one[0] for one in words if len(one) == 1), "")
    return [(single, kind)]


def _inside(part: object, kind: Any) -> Any:
    """The type of what stands in `kind` under the key or number `part`."""
    if part in getattr(kind, "model_fields", {}):
        return kind.model_fields[part].annotation
    return get_args(kind)[-1] if get_origin(kind) in (dict, tuple) and part != "[key]" else None


def keys(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if not field.exclude]
