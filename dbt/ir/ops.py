"""The operations of the IR: one table, from which builder, verifier, printer and the engines' completeness tests work.

A row is (name, argument rules, attributes, result rule, effects, what it does).

Argument rules: `any`, `ints` (integer scalar or vector), `int` (scalar), `floats` (scalar or vector), `vec`, or a type
name; `=k`: the type of argument k; `?k`: i1, or a vector of i1 with the lanes of argument k. A last rule with `?` at
its end may be absent, one with `*` may be given any number of times.
Attributes: `name:KIND` or `name:KIND=default`; KIND is INT, BOOL, PLACE, LANES (a tuple of lane numbers), BITS (an
integer, or one for each lane), NAME, or the allowed words as `a|b|c`.
Result rules: `none`, a type name, `=k`, `?k`, `lane` (of argument 0), `lanes` (argument 0 with as many lanes as the
mask has), `type` (named by the op itself; rules.py says what is allowed).

All integer operations are total: shifts take the amount modulo the lane's width, x / 0 is 0, MIN / -1 is MIN.
"""

from __future__ import annotations

from typing import Final, NamedTuple

# Effects, as bits. An op without any is pure: it may be removed, repeated and moved.
GET: Final = 1  # reads guest registers
PUT: Final = 2  # writes guest registers
LOAD: Final = 4  # reads guest memory; may fault
STORE: Final = 8  # writes guest memory; may fault
FLAGS_IN: Final = 16  # reads flags
FLAGS_OUT: Final = 32  # writes flags
FP: Final = 64  # reads FPCR, adds to the sticky flags of FPSR
LEAVE: Final = 128  # may leave in the middle of the instruction
END: Final = 256  # last op of a template
ORDER: Final = 512  # keeps its place among accesses to memory; does not fault


class Attr(NamedTuple):
    """An attribute of an op. `kind` is INT, BOOL, PLACE, LANES, BITS, NAME or CHOICE (of `choices`)."""

    name: str
    kind: str
    choices: tuple[str, ...]
    required: bool
    default: int | str | bool


class OpInfo(NamedTuple):
    """One row of the table."""

    name: str
    args: tuple[str, ...]
    attrs: tuple[Attr, ...]
    result: str
    effects: int
    doc: str


def _attr(text: str) -> Attr:
    name, _, rest = text.partition(":")
    kind, equals, default = rest.partition("=")
    value: int | str | bool = default
    if default.lstrip("-").isdigit():
        value = int(default)
    elif default in ("True", "False"):
        value = default == "True"
    if kind.isupper():
        return Attr(name, kind, (), not equals, value)
    return Attr(name, "CHOICE", tuple(kind.split("|")), not equals, value)


_RM: Final = "rm:dynamic|even|up|down|zero|away"
_RMD: Final = "rm:dynamic|even|up|down|zero=dynamic"
_SPACE: Final = "space:memory|io|host=memory endian:little|big=little"
_LOAD: Final = "order:relaxed|acquire=relaxed " + _SPACE
_STORE: Final = "order:relaxed|release=relaxed " + _SPACE
_BOTH: Final = "order:relaxed|acquire|release|acq_rel=relaxed endian:little|big=little"
_KIND: Final = "kind:add|adc|sub|sbc|logic"
_PC: Final = "pc:this|next=this"

_ROWS: Final[tuple[tuple[str, str, str, str, int, str], ...]] = (
    # operands of the record
    ("const", "", "value:BITS", "type", 0, "a constant; a float's value is its bits"),
    ("imm", "", "", "i64", 0, "Record.imm"),
    ("imm2", "", "", "i64", 0, "Record.target, used as a second immediate"),
    ("pc", "", "", "i64", 0, "address of this instruction"),
    ("npc", "", "", "i64", 0, "address of the next instruction in memory"),
    ("number", "", "index:INT", "i64", 0, "a number of an insertion (layout.Insertion), not of the record"),
    ("get", "", "place:PLACE", "type", GET, "the guest state at a place"),
    ("put", "any", "place:PLACE", "none", PUT, "writes the value's bytes to a place"),
    # integers, lanewise on vectors
    ("add", "ints =0", "", "=0", 0, "sum, wrapping"),
    ("sub", "ints =0", "", "=0", 0, "difference, wrapping"),
    ("mul", "ints =0", "", "=0", 0, "low half of the product"),
    ("and", "ints =0", "", "=0", 0, "bitwise and"),
    ("or", "ints =0", "", "=0", 0, "bitwise or"),
    ("xor", "ints =0", "", "=0", 0, "bitwise exclusive or"),
    ("shl", "ints =0", "", "=0", 0, "shift left"),
    ("lshr", "ints =0", "", "=0", 0, "logical shift right"),
    ("ashr", "ints =0", "", "=0", 0, "arithmetic shift right"),
    ("rotr", "ints =0", "", "=0", 0, "rotate right"),
    ("fshr", "ints =0 =0", "", "=0", 0, "low half of (argument 0 : argument 1) shifted right by argument 2"),
    ("udiv", "ints =0", "", "=0", 0, "unsigned quotient; x / 0 = 0"),
    ("sdiv", "ints =0", "", "=0", 0, "signed quotient towards 0; x / 0 = 0, MIN / -1 = MIN"),
    ("umulh", "ints =0", "", "=0", 0, "high half of the unsigned product"),
    ("smulh", "ints =0", "", "=0", 0, "high half of the signed product"),
    ("umin", "ints =0", "", "=0", 0, "unsigned minimum"),
    ("umax", "ints =0", "", "=0", 0, "unsigned maximum"),
    ("smin", "ints =0", "", "=0", 0, "signed minimum"),
    ("smax", "ints =0", "", "=0", 0, "signed maximum"),
    ("uaddsat", "ints =0", "", "=0", 0, "unsigned sum, saturating"),
    ("saddsat", "ints =0", "", "=0", 0, "signed sum, saturating"),
    ("usubsat", "ints =0", "", "=0", 0, "unsigned difference, saturating at 0"),
    ("ssubsat", "ints =0", "", "=0", 0, "signed difference, saturating"),
    ("eq", "ints =0", "", "?0", 0, "equal"),
    ("ne", "ints =0", "", "?0", 0, "not equal"),
    ("ult", "ints =0", "", "?0", 0, "unsigned less"),
    ("ule", "ints =0", "", "?0", 0, "unsigned less or equal"),
    ("slt", "ints =0", "", "?0", 0, "signed less"),
    ("sle", "ints =0", "", "?0", 0, "signed less or equal"),
    ("clz", "ints", "", "=0", 0, "number of leading zero bits (the width for 0)"),
    ("ctz", "ints", "", "=0", 0, "number of trailing zero bits (the width for 0)"),
    ("popcount", "ints", "", "=0", 0, "number of bits set"),
    ("bitreverse", "ints", "", "=0", 0, "bits in reverse order"),
    ("bswap", "ints", "", "=0", 0, "bytes in reverse order"),
    ("abs", "ints", "", "=0", 0, "absolute value; MIN stays"),
    ("zext", "ints", "", "type", 0, "zero-extended"),
    ("sext", "ints", "", "type", 0, "sign-extended"),
    ("trunc", "ints", "", "type", 0, "the low bits"),
    ("sat_narrow", "ints", "from_signed:BOOL to_signed:BOOL", "type", 0, "the nearest value that fits"),
    ("bitcast", "any", "", "type", 0, "the same bits as another type; lane 0 is lowest"),
    ("select", "?1 any =1", "", "=1", 0, "argument 1 where argument 0 is set, else argument 2; lanewise for a mask"),
    # vectors
    ("lane", "vec", "index:INT", "lane", 0, "one lane"),
    ("with_lane", "vec any", "index:INT", "=0", 0, "argument 0 with one lane replaced"),
    ("splat", "any", "", "type", 0, "a vector of equal lanes"),
    ("shuffle", "vec =0", "mask:LANES", "lanes", 0, "the lanes of argument 0, then 1, picked by number"),
    ("reduce", "vec", "op:add|and|or|xor|umin|umax|smin|smax", "lane", 0, "all lanes combined, integers only"),
    ("tbl", "vec v16i8*", "", "=0", 0, "bytes of the tables (1 to 4) picked by those of argument 0; beyond: 0"),
    ("clmul", "i64 i64", "", "i128", 0, "carry-less product"),
    ("pmul", "vec =0", "", "=0", 0, "low half of the carry-less product, lanewise"),
    # memory
    ("load", "i64", _LOAD, "type", LOAD, "a value from memory"),
    ("store", "i64 any", _STORE, "none", STORE, "a value to memory"),
    ("load_exclusive", "i64", _LOAD, "type", LOAD, "load that arms the monitor with address, size and value"),
    ("store_exclusive", "i64 int", _STORE, "i32", LOAD | STORE, "0: stored; 1: the monitor or memory did not match"),
    ("clear_exclusive", "", "", "none", PUT, "disarms the monitor"),
    ("rmw", "i64 int", "op:add|and|or|xor|xchg|smax|smin|umax|umin " + _BOTH, "=1", LOAD | STORE,
     "atomic update of memory; the old value"),
    ("cas", "i64 int =1", _BOTH, "=1", LOAD | STORE, "memory becomes argument 2 if it is argument 1; the old value"),
    ("fence", "", "kind:full|load|store", "none", ORDER, "memory barrier"),
    ("align_check", "i64", "size:INT", "none", LEAVE, "EXIT_ALIGNMENT unless the address is a multiple of size"),
    # flags: lowering and state are words, see layout.Env.flags
    ("flags", "ints =0 =0 i1?", _KIND, "none", FLAGS_OUT, "NZCV of result (argument 2) = a op b [carry]"),
    ("flags_if", "i1 int =1 =1 i64", _KIND, "none", FLAGS_OUT,
     "NZCV of (a, b, result) = arguments 1 to 3 if argument 0 holds, else the low 4 bits of argument 4"),
    ("cond", "", "cc:eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le", "i1", FLAGS_IN, "a condition on the flags"),
    ("carry", "", "", "i1", FLAGS_IN, "the C flag"),
    ("nzcv", "", "", "i64", FLAGS_IN, "the flags in bits 31 to 28"),
    ("set_nzcv", "i64", "", "none", FLAGS_OUT, "the flags from bits 31 to 28"),
    # floating point: Arm's NaN rules, guest FPCR, sticky flags; lanewise on vectors
    ("fadd", "floats =0", _RMD, "=0", FP, "sum"),
    ("fsub", "floats =0", _RMD, "=0", FP, "difference"),
    ("fmul", "floats =0", _RMD, "=0", FP, "product"),
    ("fmulx", "floats =0", _RMD, "=0", FP, "product; 0 times infinity is 2"),
    ("fdiv", "floats =0", _RMD, "=0", FP, "quotient"),
    ("fsqrt", "floats", _RMD, "=0", FP, "square root"),
    ("fma", "floats =0 =0", _RMD, "=0", FP, "a + n * m, rounded once"),
    ("fneg", "floats", "", "=0", 0, "sign inverted"),
    ("fabs", "floats", "", "=0", 0, "sign cleared"),
    ("fmin", "floats =0", "", "=0", FP, "minimum; NaN if either is"),
    ("fmax", "floats =0", "", "=0", FP, "maximum; NaN if either is"),
    ("fminnm", "floats =0", "", "=0", FP, "minimum; a number wins over a quiet NaN"),
    ("fmaxnm", "floats =0", "", "=0", FP, "maximum; a number wins over a quiet NaN"),
    ("fcmp", "floats =0", "pred:eq|ge|gt signaling:BOOL", "?0", FP, "a comparison; unordered is false"),
    ("fcmp_flags", "floats =0", "signaling:BOOL", "none", FP | FLAGS_OUT, "NZCV of a comparison; unordered is 0011"),
    ("fconvert", "floats", "rm:dynamic|even|up|down|zero|odd=dynamic", "type", FP, "to another precision"),
    ("ftoi", "floats", "signed:BOOL " + _RM + " fbits:INT=0", "type", FP, "to integer or fixed point, saturating"),
    ("itof", "ints", "signed:BOOL fbits:INT=0 " + _RMD, "type", FP, "from integer or fixed point"),
    ("frint", "floats", _RM + " exact:BOOL", "=0", FP, "to an integral value; exact: raises inexact"),
    ("fpcr", "", "", "i64", GET, "the control register"),
    ("set_fpcr", "i64", "", "none", PUT, "writes the control register"),
    ("fpsr", "", "", "i64", GET | FP, "the status register with all sticky flags up to here"),
    ("set_fpsr", "i64", "", "none", PUT | FP, "writes the status register"),
    ("set_qc", "i1", "", "none", FP, "adds to the sticky saturation flag (FPSR bit 27)"),
    # control
    ("goto", "", "", "none", END, "to Record.target"),
    ("goto_if", "i1", "", "none", END, "to Record.target if the condition holds, else on"),
    ("goto_indirect", "i64", "hint:jump|call|return=jump", "none", END, "to an address"),
    ("repeat_if", "i1", "", "none", END, "this instruction once more, after a poll, if the condition holds, else on"),
    ("exit", "i64?", "reason:INT " + _PC, "none", END, "to the runtime with EXIT_... and a value"),
    ("exit_if", "i1 i64?", "reason:INT " + _PC, "none", LEAVE, "to the runtime if the condition holds"),
    ("event", "i1 i64", "", "none", LEAVE,
     "to Python with EXIT_EVENT and argument 1 if argument 0 holds, then on behind this template"),
    ("helper", "i64*", "name:NAME effects:pure|reads|writes=writes", "type?", GET | PUT,
     "calls a function of dbt/engine/helpers.py with env and the arguments"),
)  # fmt: skip

OPS: Final[dict[str, OpInfo]] = {
    name: OpInfo(name, tuple(args.split()), tuple(map(_attr, attrs.split())), result, effects, doc)
    for name, args, attrs, result, effects, doc in _ROWS
}
FLAG_KINDS: Final = tuple(OPS["flags"].attrs[0].choices)
CONDITIONS: Final = tuple(OPS["cond"].attrs[0].choices)  # in the order of Arm's condition field
INVERSE: Final = dict(zip(CONDITIONS, (CONDITIONS[i ^ 1] for i in range(len(CONDITIONS))), strict=True))
