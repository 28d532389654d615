"""Strict reading: frozen types, YAML without traps, and complaints in one line.

Refused are unknown and duplicate keys, wrong types, aliases, and numbers that YAML takes for
text. Types are pydantic models in strict mode; YAML is passed to them as JSON, where a list may
become a tuple and an integer a float, but never a text a number.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pretune.errors import StudyError


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
    """One complaint as one line: file, key, value, what is allowed. An unknown key explains a
    missing one.
    """
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    place = [
        str(part)
        for part in first["loc"]
        if part not in ("microworld", "corpus", "folder", "hub", "tables", "[key]")
        or part == first["loc"][-1]
    ]
    key, value = ".".join(place) or "the whole", first["input"]
    told = json.dumps(value, ensure_ascii=False) if not isinstance(value, dict) else "{...}"
    if first["type"] == "extra_forbidden":
        allowed = keys(_model_at(root, first["loc"][:-1]))
        near = difflib.get_close_matches(place[-1], allowed, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{file}: {key}: unknown key; {hint}allowed: {', '.join(allowed)}"
    if first["type"] == "missing":
        return f"{file}: {key}: missing; it must be given"
    hint = ""
    if isinstance(value, str) and first["type"] in ("float_type", "int_type"):
        hint = (
            " (YAML reads it as text: write 2.0e-6, not 2e-6)"
            if "e" in value.lower()
            else " (it is text)"
        )
    message = first["msg"].removeprefix("Value error, ")
    return f"{file}: {key}: {told} is refused; {message[0].lower()}{message[1:]}{hint}"


def _model_at(root: type[BaseModel], loc: tuple) -> type[BaseModel]:
    """The model whose key is at `loc`, by the path pydantic reports (a union's tag is part of
    it).
    """
    model: Any = root
    for part in loc:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = model.model_fields[part].annotation
        else:  # a union's tag or a mapping's key
            options = [
                one
                for one in getattr(model, "__args__", ())
                if isinstance(one, type) and issubclass(one, BaseModel)
            ]
            tagged = [
                one
                for one in options
                if "source" in one.model_fields
                and part in one.model_fields["source"].annotation.__args__
            ]
            model = (tagged or options)[-1]
    return model


def keys(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if not field.exclude]
