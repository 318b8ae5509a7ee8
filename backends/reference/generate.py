"""Templates to Python: one function a form, one statement an op.

The function is `step(r, imm, imm2, pc, npc)` with the record's register tokens and its numbers as unsigned ints; it
returns the address of the next instruction, or -1 after an exit (see State.leave). Its globals are a State's namespace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dbt.ir.lanes import EXPRESSIONS, NARROWINGS, expression
from dbt.ir.ops import OPS
from dbt.ir.types import I1, Type
from dbt.ir.values import IRError, Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.ir.values import Op, Template, Value

_M64: Final = "0xffffffffffffffff"
_OPERANDS: Final = {"imm": "imm", "imm2": "imm2", "pc": "pc", "npc": "npc"}
_CONDITIONS: Final = {
    "eq": "F[1] == 0", "ne": "F[1] != 0", "cs": "F[2] != 0", "cc": "F[2] == 0",
    "mi": "F[0] >> 63", "pl": "F[0] >> 63 == 0", "vs": "F[3] >> 63", "vc": "F[3] >> 63 == 0",
    "hi": "F[2] != 0 and F[1] != 0", "ls": "F[2] == 0 or F[1] == 0",
    "ge": "(F[0] ^ F[3]) >> 63 == 0", "lt": "(F[0] ^ F[3]) >> 63",
    "gt": "F[1] != 0 and (F[0] ^ F[3]) >> 63 == 0", "le": "F[1] == 0 or (F[0] ^ F[3]) >> 63 != 0",
}  # fmt: skip
_FLOAT: Final = {
    "fadd": "add", "fsub": "sub", "fmul": "mul", "fmulx": "mulx", "fdiv": "div", "fsqrt": "sqrt", "fma": "fma",
    "fmin": "minimum", "fmax": "maximum", "fminnm": "minimum_number", "fmaxnm": "maximum_number",
}  # fmt: skip


def compile_template(template: Template, namespace: dict[str, object]) -> Callable[..., int]:
    """The function of a template, with `namespace` as its globals."""
    code = compile(generate(template), f"<form {template.name}>", "exec")
    scope: dict[str, Callable[..., int]] = {}
    exec(code, namespace, scope)  # noqa: S102  (source of our own making)
    return scope["step"]


def generate(template: Template) -> str:
    """Python source of the function."""
    writer = _Writer()
    for op in template.ops:
        writer.op(op)
    lines = [*writer.lines, "return npc"]
    return "def step(r, imm, imm2, pc, npc):\n" + "".join(f"    {line}\n" for line in lines)


def _place(place: Place, type_: Type) -> tuple[str, str]:
    """(view, index) of a place."""
    bits = min(type_.bits, 64)
    shift = {8: 0, 16: 1, 32: 2, 64: 3}[bits]
    if place.token is None:
        return f"G{bits}", str(place.offset >> shift)
    offset = f"r[{place.token}]" + (f" + {place.offset}" if place.offset else "")
    return f"G{bits}", f"{offset} >> {shift}" if shift else offset


class _Writer:
    """Collects statements. `names` says how each value is written: a local, or a literal."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[Value, str] = {}

    def op(self, op: Op) -> None:
        """Translate one op."""
        if op.name == "const":
            value = op.attrs["value"]
            assert op.result is not None  # noqa: S101
            self.names[op.result] = str(value) if isinstance(value, tuple) else f"({value})"
            return
        method = getattr(self, f"op_{op.name}", None)
        if method is not None:
            text = method(op)
        elif op.name in _FLOAT:
            text = self.float(op)
        elif op.name in EXPRESSIONS:
            text = self.lanewise(op, EXPRESSIONS[op.name])
        elif op.name in _OPERANDS:
            text = _OPERANDS[op.name]
        else:
            raise IRError(f"the reference engine does not know {op.name}")
        if op.result is not None:
            name = self.names[op.result] = f"v{op.result.index}"
            self.lines.append(f"{name} = {text}")
        elif text:
            self.lines.append(text)

    def args(self, op: Op) -> list[str]:
        """The arguments as Python."""
        return [self.names[a] for a in op.args]

    def lanewise(self, op: Op, template: str, *fixed: str) -> str:
        """An expression in a, b, c over the arguments, once or for each lane."""
        assert op.type is not None  # noqa: S101
        args = self.args(op)
        lanes = op.args[0].type.lanes
        if not lanes:
            return expression(template, op.args[0].type, op.type.lane, *args, *fixed)
        names = ["a", "b", "c"][: len(args)]
        body = expression(template, op.args[0].type, op.type.lane, *names, *fixed)
        over = f"zip({', '.join(args)})" if len(args) > 1 else args[0]
        return f"tuple([{body} for {', '.join(names)} in {over}])"

    # state
    def op_get(self, op: Op) -> str:
        """Read the register file."""
        assert isinstance(place := op.attrs["place"], Place)  # noqa: S101
        assert (type_ := op.type) is not None  # noqa: S101
        view, index = _place(place, type_)
        if type_.bits == 128:  # noqa: PLR2004
            whole = f"{view}[{index}] | {view}[({index}) + 1] << 64"
            return f"({whole},)" if type_.lanes else whole
        if not type_.lanes:
            return f"{view}[{index}]"
        return f"tuple({view}[{index}:({index}) + {type_.lanes}])"

    def op_put(self, op: Op) -> str:
        """Write the register file."""
        assert isinstance(place := op.attrs["place"], Place)  # noqa: S101
        type_, (value,) = op.args[0].type, self.args(op)
        view, index = _place(place, type_)
        if type_.bits == 128:  # noqa: PLR2004
            lane = f"{value}[0]" if type_.lanes else value
            return f"{view}[{index}], {view}[({index}) + 1] = {lane} & {_M64}, {lane} >> 64"
        if not type_.lanes:
            return f"{view}[{index}] = {value}"
        targets = ", ".join(f"{view}[i + {k}]" for k in range(type_.lanes))
        self.lines.append(f"i = {index}")
        return f"{targets}, = {value}"

    # integers beyond the table of lanes
    def op_select(self, op: Op) -> str:
        """Lanewise for a mask, whole for an i1."""
        if op.args[0].type is not I1:
            return self.lanewise(op, EXPRESSIONS["select"])
        condition, yes, no = self.args(op)
        return f"{yes} if {condition} else {no}"

    def op_sat_narrow(self, op: Op) -> str:
        """Clamp."""
        return self.lanewise(op, NARROWINGS[op.attrs["from_signed"] is True, op.attrs["to_signed"] is True])

    def op_bitcast(self, op: Op) -> str:
        """Through one number, unless only the name of the type changes."""
        assert (to := op.type) is not None  # noqa: S101
        (value,), source = self.args(op), op.args[0].type
        if (source.bits, source.lanes) == (to.bits, to.lanes):
            return value
        whole = f"join({value}, {source.bits})" if source.lanes else value
        return f"split({whole}, {to.bits}, {to.lanes})" if to.lanes else whole

    # vectors
    def op_lane(self, op: Op) -> str:
        """One lane."""
        return f"{self.args(op)[0]}[{op.attrs['index']}]"

    def op_with_lane(self, op: Op) -> str:
        """Replace a lane."""
        (vector, value), index = self.args(op), op.attrs["index"]
        return f"{vector}[:{index}] + ({value},) + {vector}[{index} + 1:]"

    def op_splat(self, op: Op) -> str:
        """Repeat."""
        assert op.type is not None  # noqa: S101
        return f"({self.args(op)[0]},) * {op.type.lanes}"

    def op_shuffle(self, op: Op) -> str:
        """Pick."""
        a, b = self.args(op)
        self.lines.append(f"i = {a} + {b}")
        return f"tuple([i[k] for k in {op.attrs['mask']}])"

    def op_reduce(self, op: Op) -> str:
        """Combine."""
        mask = hex((1 << op.args[0].type.bits) - 1)
        return f"combine({str(op.attrs['op'])!r}, {self.args(op)[0]}, {mask})"

    def op_tbl(self, op: Op) -> str:
        """Look up."""
        indices, *tables = self.args(op)
        return f"look_up({indices}, {' + '.join(tables)})"

    # memory
    def _loaded(self, text: str, type_: Type) -> str:
        return f"split({text}, {type_.bits}, {type_.lanes})" if type_.lanes else text

    def _stored(self, value: Value) -> str:
        name = self.names[value]
        return f"join({name}, {value.type.bits})" if value.type.lanes else name

    def op_load(self, op: Op) -> str:
        """Memory or I/O."""
        assert op.type is not None  # noqa: S101
        access = f"{self.args(op)[0]}, {op.type.width // 8}"
        space, endian = op.attrs["space"], op.attrs["endian"]
        plain = space == "memory" and endian == "little"
        return self._loaded(f"load({access})" if plain else f"load_as({access}, {space!r}, {endian!r})", op.type)

    def op_store(self, op: Op) -> str:
        """Memory or I/O."""
        access = f"{self.args(op)[0]}, {op.args[1].type.width // 8}, {self._stored(op.args[1])}"
        space, endian = op.attrs["space"], op.attrs["endian"]
        plain = space == "memory" and endian == "little"
        return f"store({access})" if plain else f"store_as({access}, {space!r}, {endian!r})"

    def op_load_exclusive(self, op: Op) -> str:
        """Load and arm."""
        assert op.type is not None  # noqa: S101
        return f"load_exclusive({self.args(op)[0]}, {op.type.width // 8})"

    def op_store_exclusive(self, op: Op) -> str:
        """Check and store."""
        address, value = self.args(op)
        return f"store_exclusive({address}, {op.args[1].type.width // 8}, {value})"

    def op_clear_exclusive(self, _op: Op) -> str:
        """Disarm."""
        return "clear_exclusive()"

    def op_rmw(self, op: Op) -> str:
        """Update."""
        address, value = self.args(op)
        size, endian = op.args[1].type.width // 8, op.attrs["endian"]
        return f"rmw({str(op.attrs['op'])!r}, {address}, {size}, {value}, {endian!r})"

    def op_cas(self, op: Op) -> str:
        """Compare and swap."""
        address, expected, new = self.args(op)
        return f"cas({address}, {op.args[1].type.width // 8}, {expected}, {new}, {op.attrs['endian']!r})"

    def op_fence(self, _op: Op) -> str:
        """Python runs one guest thread at a time, in order."""
        return ""

    def op_align_check(self, op: Op) -> str:
        """Exit if misaligned."""
        from dbt.engine.layout import EXIT_ALIGNMENT

        (address,), size = self.args(op), op.attrs["size"]
        self.lines.append(f"if {address} % {size}: return leave({EXIT_ALIGNMENT}, pc, {address})")
        return ""

    # flags
    def op_flags(self, op: Op) -> str:
        """The four words."""
        self.lines += self._flag_words(op, self.args(op), op.args[0].type)
        return ""

    def op_flags_if(self, op: Op) -> str:
        """The four words, or a literal."""
        met, *operands, literal = self.args(op)
        self.lines.append(f"if {met}:")
        self.lines += ["    " + line for line in self._flag_words(op, operands, op.args[1].type)]
        return f"else: set_nzcv(({literal} & 15) << 28)"

    def _flag_words(self, op: Op, operands: list[str], type_: Type) -> list[str]:
        a, b, result, *carry = operands
        kind, bits = op.attrs["kind"], type_.bits
        sign, shift = hex(1 << bits - 1), 64 - bits
        carries = {
            "add": f"{result} < {a}",
            "adc": f"{result} < {a} or ({carry and carry[0]} and {result} == {a})",
            "sub": f"{a} >= {b}",
            "sbc": f"{a} > {b} or ({carry and carry[0]} and {a} == {b})",
            "logic": "0",
        }
        differ = f"({a} ^ {b})" if kind in ("sub", "sbc") else f"~({a} ^ {b})"
        overflow = "0" if kind == "logic" else f"({differ} & ({a} ^ {result}) & {sign}) << {shift}"
        return [
            f"F[0] = (({result} ^ {sign}) - {sign}) & {_M64}",
            f"F[1] = {result}",
            f"F[2] = 1 if {carries[str(kind)]} else 0",
            f"F[3] = {overflow}",
        ]

    def op_cond(self, op: Op) -> str:
        """A condition."""
        return _CONDITIONS[str(op.attrs["cc"])]

    def op_carry(self, _op: Op) -> str:
        """C."""
        return "F[2]"

    def op_nzcv(self, _op: Op) -> str:
        """All four."""
        return "(F[0] >> 63) << 31 | (F[1] == 0) << 30 | F[2] << 29 | (F[3] >> 63) << 28"

    def op_set_nzcv(self, op: Op) -> str:
        """All four."""
        return f"set_nzcv({self.args(op)[0]})"

    # floating point
    def _each(self, op: Op, call: str) -> str:
        """`call` with {a}, {b}, {c} as the arguments of a lane."""
        args = self.args(op)
        if not op.args[0].type.lanes:
            return call.format(**dict(zip("abc", args, strict=False)))
        names = ["a", "b", "c"][: len(args)]
        over = f"zip({', '.join(args)})" if len(args) > 1 else args[0]
        return f"tuple([{call.format(a='a', b='b', c='c')} for {', '.join(names)} in {over}])"

    def float(self, op: Op) -> str:
        """Arithmetic."""
        names = ", ".join(["{a}", "{b}", "{c}"][: len(op.args)])
        rm = op.attrs.get("rm", "dynamic")
        return self._each(op, f"fp({_FLOAT[op.name]!r}, {rm!r}, {op.args[0].type.bits}, {names})")

    def op_fcmp(self, op: Op) -> str:
        """A comparison."""
        pred, signaling = op.attrs["pred"], op.attrs["signaling"]
        return self._each(op, f"fp_compare({pred!r}, {op.args[0].type.bits}, {{a}}, {{b}}, signaling={signaling})")

    def op_fcmp_flags(self, op: Op) -> str:
        """A comparison to flags."""
        a, b = self.args(op)
        return f"fp_compare_flags({op.args[0].type.bits}, {a}, {b}, signaling={op.attrs['signaling']})"

    def op_fconvert(self, op: Op) -> str:
        """To another precision."""
        assert op.type is not None  # noqa: S101
        rm = op.attrs["rm"]
        return self._each(op, f"fp_call('convert', {op.args[0].type.bits}, {op.type.bits}, {{a}}, rm={rm!r})")

    def op_ftoi(self, op: Op) -> str:
        """To integer."""
        return self._each(op, self._fixed(op, "to_int"))

    def op_itof(self, op: Op) -> str:
        """From integer."""
        return self._each(op, self._fixed(op, "from_int"))

    def _fixed(self, op: Op, name: str) -> str:
        assert op.type is not None  # noqa: S101
        attrs = op.attrs
        options = f"signed={attrs['signed']}, rm={attrs['rm']!r}, fraction_bits={attrs['fbits']}"
        return f"fp_call({name!r}, {op.args[0].type.bits}, {op.type.bits}, {{a}}, {options})"

    def op_frint(self, op: Op) -> str:
        """To an integral value."""
        rm, exact = op.attrs["rm"], op.attrs["exact"]
        return self._each(op, f"fp_call('round_int', {op.args[0].type.bits}, {{a}}, rm={rm!r}, exact={exact})")

    def op_fpcr(self, _op: Op) -> str:
        """Control."""
        return "get_fpcr()"

    def op_fpsr(self, _op: Op) -> str:
        """Status."""
        return "get_fpsr()"

    def op_set_fpcr(self, op: Op) -> str:
        """Control."""
        return f"set_fpcr({self.args(op)[0]})"

    def op_set_fpsr(self, op: Op) -> str:
        """Status."""
        return f"set_fpsr({self.args(op)[0]})"

    def op_set_qc(self, op: Op) -> str:
        """Saturated."""
        return f"set_qc({self.args(op)[0]})"

    # control
    def op_goto(self, _op: Op) -> str:
        """Branch."""
        return "return imm2"

    def op_goto_if(self, op: Op) -> str:
        """Conditional branch."""
        return f"if {self.args(op)[0]}: return imm2"

    def op_goto_indirect(self, op: Op) -> str:
        """Indirect branch."""
        return f"return {self.args(op)[0]}"

    def op_repeat_if(self, op: Op) -> str:
        """Once more."""
        return f"if {self.args(op)[0]}: return pc"

    def _leave(self, op: Op, values: list[str]) -> str:
        pc = "pc" if op.attrs["pc"] == "this" else "npc"
        return f"return leave({', '.join([str(op.attrs['reason']), pc, *values])})"

    def op_exit(self, op: Op) -> str:
        """Leave."""
        return self._leave(op, self.args(op))

    def op_exit_if(self, op: Op) -> str:
        """Leave on a condition."""
        condition, *values = self.args(op)
        return f"if {condition}: {self._leave(op, values)}"

    def op_helper(self, op: Op) -> str:
        """Call."""
        call = f"call_helper({', '.join([repr(str(op.attrs['name'])), *self.args(op)])})"
        return f"{call} & {hex((1 << op.type.bits) - 1)}" if op.type is not None else call


# Ops that generated code knows: tests compare this with the table.
KNOWN: Final = {
    name for name in OPS if name in EXPRESSIONS or name in _FLOAT or name in _OPERANDS or hasattr(_Writer, f"op_{name}")
} | {"const"}
