"""Names that look alike: written in other capitals, composed in another way, or with invisible characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_INVISIBLE = ("Cf", "Cc")
"""Unicode's categories of characters that show nothing (zero-width space, soft hyphen, byte order mark …)."""
_SELECTORS = {0x034F, *range(0xFE00, 0xFE10)}


def plain(name: str) -> str:
    """The name composed, without invisible characters, with plain blanks and dashes."""
    if not (name.isascii() and name.isprintable()):
        name = "".join(map(_plain, unicodedata.normalize("NFC", name)))
    return " ".join(name.split())


def canonical(name: str) -> str:
    """The same text for names that a reader would take for one: plain, and whatever the capitals."""
    return unicodedata.normalize("NFC", plain(name).casefold())


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Groups of different names that look alike, each in the order of `names`."""
    groups: dict[str, dict[str, None]] = {}
    for name in names:
        groups.setdefault(canonical(name), {})[name] = None
    return [list(group) for group in groups.values() if len(group) > 1]


def _plain(letter: str) -> str:
    category = unicodedata.category(letter)
    if letter.isspace():
        return " "
    if category in _INVISIBLE or ord(letter) in _SELECTORS:
        return ""
    return "-" if category == "Pd" or letter == "\N{MINUS SIGN}" else letter
