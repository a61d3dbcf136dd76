"""YAML files and the faults that pydantic finds in them, each as one line: file, key, value, what was expected."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fracsurv.utils.errors import LONGEST_SHOWN, closest, shorten
from fracsurv.utils.names import plain

EXPECTED = {
    "bool_type": "must be true or false",
    "dict_type": "must hold `name: value` lines",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "string_type": "must be text",
    "tuple_type": "must be a list",
}
"""By the type of pydantic's error, where its own message is meant for programmers."""

PLAINER = (
    ("Value error, ", ""), ("Input should", "must"), ("greater than or equal to", "at least"),
    ("less than or equal to", "at most"), ("greater than", "above"), ("less than", "below"),
)  # fmt: skip


class _Loader(yaml.SafeLoader):
    """Notes keys that occur twice in one mapping, however they are written; YAML would silently keep the last."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[tuple[str, int]] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        first: dict[Any, str] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            text = plain(key.value)
            # yes and true are one key, and so are 1 and 1.0
            value = text if key.tag.endswith((":str", ":merge", ":value")) else self.construct_object(key)
            earlier = first.get(text, first.get(value))
            if earlier is not None:
                other = "" if earlier == key.value else f", also written {ascii(earlier)[:LONGEST_SHOWN]}"
                self.repeated.append((f"{shorten(key.value)}{other}", key.start_mark.line + 1))
            first |= {text: key.value, value: key.value}
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, faults: list[str]) -> dict[Any, Any] | None:
    """The mapping that a YAML file holds, or None where it holds none; faults are appended to `faults`."""
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        content = loader.get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = " (must be UTF-8)" if isinstance(error, UnicodeDecodeError) else ""
        faults.append(f"{path.name}: not readable as YAML{where if line is None else f' (line {line + 1})'}")
        return None
    faults += [f"{path.name}, {name}: given twice (line {line}); keep one" for name, line in loader.repeated]
    if content is None or isinstance(content, dict):
        return content or {}
    faults.append(f"{path.name}: {EXPECTED['dict_type']}")
    return None


def validation_faults(error: ValidationError, where: str, known: Iterable[str]) -> list[str]:
    """The faults of a mapping checked by pydantic, one line each.

    Parameters
    ----------
    where : str
        File, and the entry in it, that was checked.
    known : iterable of str
        The keys that it may have.
    """
    return [_fault(each, where, list(known)) for each in error.errors(include_url=False)]


def _fault(error: dict[str, Any], where: str, known: list[str]) -> str:
    kind, keys, value = error["type"], [str(key) for key in error["loc"] if key != "[key]"], error["input"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument", "invalid_key"):
        return f"{where}: unknown setting {shorten(keys[0])}{closest(keys[0], known)}; known are {', '.join(known)}"
    if kind == "missing":
        return f"{where}: no {keys[0]}; it must be given"
    expected = EXPECTED.get(kind, error["msg"])
    for theirs, ours in PLAINER:
        expected = expected.replace(theirs, ours)
    if kind == "string_type" and error["loc"][-1] == "[key]":
        expected = "a name must be text (in quotes, if it looks like a number)"
    if kind in ("float_type", "int_type") and isinstance(value, str):
        with suppress(ValueError):  # YAML takes 1e-4 for text: its numbers need a point
            number = float(value) if kind == "float_type" else int(value)
            expected += f": write {yaml.safe_dump(number).split()[0]}"
    return f"{where}, {', '.join(keys)}: {shorten(value)}; {expected}"
