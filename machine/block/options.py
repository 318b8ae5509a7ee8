"""Options: declared by each driver, written by users as text or JSON, checked once into Python values.

    OPTIONS = (
        Option("filename", str, help="path of the file"),                 # no default: required
        Option("locking", ("auto", "on", "off"), "auto", help="..."),      # one of
        Option("l2-cache-size", SIZE, 1 << 20, help="..."),                # 64K, 1.5G, 4096
    )

Kinds: `str`, `int`, `bool` (on/off), SIZE, or a tuple of words.
"""

from __future__ import annotations

from typing import Any

from dbt.machine.block.errors import BadOption

SIZE = "size"
REQUIRED: Any = object()
SUFFIXES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50, "e": 1 << 60}
LARGEST = 1 << 63

Kind = type | str | tuple[str, ...]


class Option:
    """One option: its name as users write it, kind, default and a line of help."""

    __slots__ = ("default", "help", "kind", "name")

    def __init__(self, name: str, kind: Kind = str, default: Any = REQUIRED, *, help: str) -> None:  # noqa: A002, ANN401
        self.name = name
        self.kind = kind
        self.default = default
        self.help = help

    def value(self, given: Any, where: str) -> Any:  # noqa: ANN401 - a value of this option's kind
        """What `given`, text or a JSON value, means; a BadOption if it means nothing."""
        try:
            return convert(self.kind, given)
        except ValueError as wrong:
            raise BadOption(where, f"option {self.name!r}: {wrong}") from None


def parse_size(text: str) -> int:
    """A number of bytes: digits, perhaps a fraction, and perhaps one of the letters bkMGTPE (powers of 1024)."""
    number, suffix = (text[:-1], text[-1].lower()) if text and text[-1].isalpha() else (text, "")
    if suffix not in SUFFIXES or not number.replace(".", "", 1).isdigit() or not number.isascii():
        raise ValueError(f"{text!r} is no size: give bytes, or a number with k, M, G, T, P or E")
    whole, _, fraction = number.partition(".")
    size = int(whole or 0) * SUFFIXES[suffix]
    if fraction:
        size += int(fraction) * SUFFIXES[suffix] // 10 ** len(fraction)
    if size >= LARGEST:
        raise ValueError(f"{text!r} is too large: below 8 EiB")
    return size


def convert(kind: Kind, given: Any) -> Any:  # noqa: ANN401 - text or a JSON value in, a value of the kind out
    """`given` as a value of `kind`; ValueError says why not."""
    if isinstance(kind, tuple):
        if given in kind:
            return given
        raise ValueError(f"{given!r} is none of {', '.join(kind)}")
    if kind == SIZE:
        if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < LARGEST:
            return given
        return parse_size(str(given))
    if kind is bool:
        words = {"on": True, "off": False, "true": True, "false": False, "yes": True, "no": False}
        if isinstance(given, bool):
            return given
        if isinstance(given, str) and given in words:
            return words[given]
        raise ValueError(f"{given!r} is neither on nor off")
    if kind is int:
        if isinstance(given, int) and not isinstance(given, bool):
            return given
        try:
            return int(str(given), 0)
        except ValueError:
            raise ValueError(f"{given!r} is no number") from None
    if isinstance(given, str):
        return given
    raise ValueError(f"{given!r} is no text")


def check_options(declared: tuple[Option, ...], given: dict[str, Any], where: str) -> dict[str, Any]:
    """The values of all declared options; `where` is what an error names. Dashes and underscores are the same."""
    known = {option.name.replace("_", "-"): option for option in declared}
    values = {option.name: option.default for option in declared}
    for name, text in given.items():
        option = known.get(name.replace("_", "-"))
        if option is None:
            have = ", ".join(o.name for o in declared) or "none"
            raise BadOption(where, f"there is no option {name!r}", hint=f"options: {have}")
        if text is not None or option.default is not None:  # JSON's null is "not given" where that means something
            values[option.name] = option.value(text, where)
    for option in declared:
        if values[option.name] is REQUIRED:
            raise BadOption(where, f"option {option.name!r} must be given ({option.help})")
    return values
