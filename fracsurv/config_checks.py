"""Whether the entries of a configuration file have the types of a dataclass's fields."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _holds(of: type, check) -> Any:
    """A check of a dictionary from text, or of a list, whose every value passes `check`."""
    if of is list:
        return lambda value: isinstance(value, list) and all(map(check, value))
    return lambda value: (
        isinstance(value, dict) and all(isinstance(name, str) for name in value) and all(map(check, value.values()))
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


# by a field's annotation: how to tell the type, and what to call it
_TYPES = {
    "str": (_is_text, "text"),
    "float": (_is_number, "a number"),
    "int": (_is_whole, "a whole number"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "tuple[float, ...]": (_holds(list, _is_number), "a list of numbers"),
    "dict[str, str]": (_holds(dict, _is_text), "`name: text` pairs"),
    "dict[str, int]": (_holds(dict, _is_whole), "`name: whole number` pairs"),
}


def type_faults(row: Mapping[Any, Any], of: type) -> list[str]:
    """Entries that `of` does not have, and those of another type than it has."""
    known = {f.name: f.type for f in fields(of)}
    unknown = sorted(str(name) for name in row if name not in known)
    faults = [f"unknown {', '.join(unknown)}"] if unknown else []
    return faults + [
        fault for name, kind in known.items() if name in row and (fault := type_fault(name, row[name], kind))
    ]


def type_fault(name: str, value: object, kind: str) -> str:
    """What is wrong with a value's type; empty if nothing is. `kind` is a field's annotation."""
    right, called = _TYPES[kind]
    if right(value):
        return ""
    verb = "hold" if called.startswith("`") else "be"
    fault = f"{name}: {value!r}; must {verb} {called}"
    written = re.fullmatch(r"([+-]?\d+)(\.\d*)?(?:[eE]([+-]?)(\d+))?", value) if isinstance(value, str) else None
    if kind == "int" and written and value.lstrip("+-").isdigit():
        return f"{fault}: write {value} without quotes"
    if kind == "float" and written:
        whole, decimals, sign, power = written.groups()
        # YAML takes 1e-4 for text: its numbers need a point, and their exponents a sign
        return f"{fault}: write {whole}{decimals or '.0'}" + (f"e{sign or '+'}{power}" if power else "")
    return fault
