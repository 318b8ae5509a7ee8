"""The rules for one op: arguments, attributes and types, as its row of the table and `_SPECIAL` say."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Final

from dbt.engine.formats import NUMBERS
from dbt.engine.layout import GUEST_BYTES, TOKENS

from .ops import OPS, OpInfo
from .types import I1, Type, parse_type
from .values import IRError, Place, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .ops import Attr
    from .values import AttrValue


def check_op(info: OpInfo, args: Sequence[Value], attrs: Mapping[str, AttrValue], type_: Type | None) -> Type | None:
    """Check one op against its row; the type of its result (None: it has none)."""
    types = tuple([a.type for a in args])
    if not info.attrs and not attrs:
        return _check_plain(info.name, types, type_)
    return _check(info, types, attrs, type_)


@cache
def _check_plain(name: str, types: tuple[Type, ...], type_: Type | None) -> Type | None:
    """An op without attributes: most of them, again and again with the same few types."""
    return _check(OPS[name], types, {}, type_)


def _check(info: OpInfo, types: Sequence[Type], attrs: Mapping[str, AttrValue], type_: Type | None) -> Type | None:
    _check_args(info, types)
    names = [a.name for a in info.attrs]
    if sorted(attrs) != sorted(names):
        raise IRError(f"{info.name}: attributes {', '.join(attrs)}, but it takes {', '.join(names) or 'none'}")
    for attr in info.attrs:
        _check_attr(info.name, attr, attrs[attr.name])
    result = _result(info, types, attrs, type_)
    special = _SPECIAL.get(info.name)
    if special is not None and not special(types, result, attrs):
        shown = ", ".join(map(str, types))
        raise IRError(f"{info.name} of {shown or 'nothing'} to {result or 'nothing'} with {dict(attrs)}")
    return result


def _check_args(info: OpInfo, types: Sequence[Type]) -> None:
    rules = list(info.args)
    if rules and rules[-1].endswith("*"):
        rules[-1:] = [rules[-1][:-1]] * (len(types) - len(rules) + 1)
    elif rules and rules[-1].endswith("?"):
        rules[-1:] = [rules[-1][:-1]] * (len(types) == len(rules))
    if len(rules) != len(types):
        raise IRError(f"{info.name} takes {len(rules)} arguments, not {len(types)}")
    for i, (rule, found) in enumerate(zip(rules, types, strict=True)):
        if not _matches(rule, found, types):
            raise IRError(f"{info.name}: argument {i} is {found}, the rule says {rule} ({', '.join(map(str, types))})")


def _matches(rule: str, found: Type, types: Sequence[Type]) -> bool:
    if rule[0] == "=":
        return found is types[int(rule[1:])]
    if rule[0] == "?":
        lanes = types[int(rule[1:])].lanes
        return found is I1 or (lanes != 0 and found is I1.with_lanes(lanes))
    if rule == "any":
        return True
    if rule == "ints":
        return found.kind == "i"
    if rule == "int":
        return found.is_int
    if rule == "floats":
        return found.is_float
    if rule == "vec":
        return found.is_vector
    return found is parse_type(rule)


def _check_attr(name: str, attr: Attr, value: AttrValue) -> None:
    if attr.kind == "CHOICE":
        good = value in attr.choices
    elif attr.kind == "PLACE":
        good = isinstance(value, Place) and (value.token is None or 0 <= value.token < TOKENS)
    elif attr.kind == "LANES":
        good = isinstance(value, tuple) and not isinstance(value, Place)
    elif attr.kind == "BITS":
        good = isinstance(value, int | tuple) and not isinstance(value, bool)
    else:
        good = type(value) is {"INT": int, "BOOL": bool, "NAME": str}[attr.kind]
    if not good:
        raise IRError(f"{name}: {attr.name}={value!r} is not {'|'.join(attr.choices) or attr.kind}")


def _result(info: OpInfo, types: Sequence[Type], attrs: Mapping[str, AttrValue], type_: Type | None) -> Type | None:
    rule = info.result
    if rule == "type?":
        return type_
    if rule == "type":
        if type_ is None:
            raise IRError(f"{info.name} needs the type of its result")
        return type_
    result: Type | None
    if rule == "none":
        result = None
    elif rule[0] == "=":
        result = types[int(rule[1:])]
    elif rule[0] == "?":
        result = I1.with_lanes(types[int(rule[1:])].lanes)
    elif rule == "lane":
        result = types[0].lane
    elif rule == "lanes":
        mask = attrs["mask"]
        if not isinstance(mask, tuple) or len(mask) not in (1, 2, 4, 8, 16):
            raise IRError(f"shuffle: {mask!r} is no mask")
        result = types[0].with_lanes(len(mask))
    else:
        result = parse_type(rule)
    if type_ is not None and type_ is not result:
        raise IRError(f"{info.name} gives {result or 'nothing'}, not {type_}")
    return result


def _wider(types: Sequence[Type], result: Type | None, _attrs: Mapping[str, AttrValue]) -> bool:
    return result is not None and result.kind == "i" and result.lanes == types[0].lanes and result.bits > types[0].bits


def _narrower(types: Sequence[Type], result: Type | None, _attrs: Mapping[str, AttrValue]) -> bool:
    return result is not None and result.kind == "i" and result.lanes == types[0].lanes and result.bits < types[0].bits


def _sized(type_: Type | None) -> bool:
    """Whether values of the type have bytes: state and memory hold no i1."""
    return type_ is not None and type_.bits >= 8


def _const(_types: Sequence[Type], result: Type | None, attrs: Mapping[str, AttrValue]) -> bool:
    value = attrs["value"]
    if result is None or isinstance(value, tuple) != result.is_vector:
        return False
    lanes = value if isinstance(value, tuple) else (value,)
    if result.is_vector and len(lanes) != result.lanes:
        return False
    return all(isinstance(lane, int) and 0 <= lane < 1 << result.bits for lane in lanes)


def _place(types: Sequence[Type], result: Type | None, attrs: Mapping[str, AttrValue]) -> bool:
    type_, place = types[0] if types else result, attrs["place"]
    return (
        type_ is not None and _sized(type_) and type_.width <= 128 and isinstance(place, Place)
        and 0 <= place.offset <= GUEST_BYTES - type_.width // 8
    )  # fmt: skip


def _memory(types: Sequence[Type], result: Type | None, attrs: Mapping[str, AttrValue]) -> bool:
    type_ = types[1] if len(types) > 1 else result
    ordered = attrs.get("endian", "little") == "little" or (type_ is not None and type_.is_int)
    return type_ is not None and _sized(type_) and type_.width <= 128 and ordered


def _atomic(types: Sequence[Type], result: Type | None, attrs: Mapping[str, AttrValue]) -> bool:
    type_ = types[1] if len(types) > 1 else result
    return _memory(types, result, attrs) and type_ is not None and type_.is_int


def _index(types: Sequence[Type], _result: Type | None, attrs: Mapping[str, AttrValue]) -> bool:
    index = attrs["index"]
    right_lane = len(types) == 1 or types[1] is types[0].lane
    return isinstance(index, int) and 0 <= index < types[0].lanes and right_lane


def _shuffle(types: Sequence[Type], _result: Type | None, attrs: Mapping[str, AttrValue]) -> bool:
    mask = attrs["mask"]
    return isinstance(mask, tuple) and all(isinstance(i, int) and 0 <= i < 2 * types[0].lanes for i in mask)


def _flags(types: Sequence[Type], _result: Type | None, attrs: Mapping[str, AttrValue]) -> bool:
    kind = attrs["kind"]
    kinds = ("adc", "sbc") if types[-1] is I1 else ("add", "sub", "logic")
    return types[0].is_int and 8 <= types[0].bits <= 64 and kind in kinds


def _fixed(types: Sequence[Type], result: Type | None, attrs: Mapping[str, AttrValue]) -> bool:
    """ftoi and itof: lanes agree, fraction bits fit the integer, rounding is one of the op's."""
    if result is None or result.lanes != types[0].lanes:
        return False
    integer, real = (result, types[0]) if types[0].is_float else (types[0], result)
    fbits = attrs["fbits"]
    fits = isinstance(fbits, int) and 0 <= fbits <= integer.bits
    return integer.kind == "i" and real.is_float and _sized(integer) and fits


_Rule = Callable[["Sequence[Type]", "Type | None", "Mapping[str, AttrValue]"], bool]
_SPECIAL: Final[dict[str, _Rule]] = {
    "const": _const,
    "number": lambda *facts: facts[2]["index"] in range(NUMBERS),
    "get": _place,
    "put": _place,
    "zext": _wider,
    "sext": _wider,
    "trunc": _narrower,
    "sat_narrow": lambda types, result, attrs: _narrower(types, result, attrs) and _sized(result),
    "bitcast": lambda types, result, _: result is not None and types[0].width == result.width,
    "select": lambda types, *_: types[0] is I1 or types[0].lanes == types[1].lanes,
    "lane": _index,
    "with_lane": _index,
    "splat": lambda types, result, _: result is not None and result.is_vector and result.lane is types[0],
    "shuffle": _shuffle,
    "reduce": lambda types, *_: types[0].kind == "i",
    "tbl": lambda types, *_: types[0].bits == 8 and types[0].kind == "i" and 2 <= len(types) <= 5,
    "pmul": lambda types, *_: types[0].bits == 8 and types[0].kind == "i",
    "bswap": lambda types, *_: types[0].bits >= 8,
    "load": _memory,
    "store": _memory,
    "load_exclusive": _atomic,
    "store_exclusive": _atomic,
    "rmw": lambda types, result, attrs: _atomic(types, result, attrs) and types[1].bits <= 64,
    "cas": _atomic,
    "align_check": lambda *facts: facts[2]["size"] in (1, 2, 4, 8, 16, 32, 64),
    "flags": _flags,
    "flags_if": lambda types, _, attrs: 8 <= types[1].bits <= 64 and attrs["kind"] in ("add", "sub", "logic"),
    "fconvert": lambda types, result, _: (
        result is not None and result.is_float and result.lanes == types[0].lanes and result is not types[0]
    ),
    "ftoi": _fixed,
    "itof": _fixed,
    "helper": lambda types, result, _: len(types) <= 5 and (result is None or result.is_int),
}
