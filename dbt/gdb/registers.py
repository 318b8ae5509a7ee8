"""The guest as gdb sees it: the target description, registers in its order, signals by its numbers."""

from __future__ import annotations

from typing import Final, NamedTuple

from dbt.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dbt.engine.cpu import Cpu


class Register(NamedTuple):
    """A register: gdb's name, ours, bytes, attributes of the description."""

    name: str
    ours: str
    size: int
    type: str


CORE: Final = (
    *(Register(f"x{i}", f"x{i}", 8, "int") for i in range(31)),
    Register("sp", "sp", 8, "data_ptr"),
    Register("pc", "pc", 8, "code_ptr"),
    Register("cpsr", "nzcv", 4, "cpsr_flags"),
)
FPU: Final = (
    *(Register(f"v{i}", f"v{i}", 16, "aarch64v") for i in range(32)),
    Register("fpsr", "fpsr", 4, "int"),
    Register("fpcr", "fpcr", 4, "int"),
)
TLS: Final = (Register("tpidr", "tpidr_el0", 8, "data_ptr"),)
REGISTERS: Final = (*CORE, *FPU, *TLS)

_TYPES: Final = {
    "org.gnu.gdb.aarch64.core": """\
<flags id="cpsr_flags" size="4">
<field name="V" start="28" end="28"/><field name="C" start="29" end="29"/>
<field name="Z" start="30" end="30"/><field name="N" start="31" end="31"/>
</flags>
""",
    "org.gnu.gdb.aarch64.fpu": """\
<vector id="v2d" type="ieee_double" count="2"/><vector id="v2u" type="uint64" count="2"/>
<vector id="v2i" type="int64" count="2"/><vector id="v4f" type="ieee_single" count="4"/>
<vector id="v4u" type="uint32" count="4"/><vector id="v4i" type="int32" count="4"/>
<vector id="v8u" type="uint16" count="8"/><vector id="v8i" type="int16" count="8"/>
<vector id="v16u" type="uint8" count="16"/><vector id="v16i" type="int8" count="16"/>
<vector id="v1u" type="uint128" count="1"/><vector id="v1i" type="int128" count="1"/>
<union id="vnd"><field name="f" type="v2d"/><field name="u" type="v2u"/><field name="s" type="v2i"/></union>
<union id="vns"><field name="f" type="v4f"/><field name="u" type="v4u"/><field name="s" type="v4i"/></union>
<union id="vnh"><field name="u" type="v8u"/><field name="s" type="v8i"/></union>
<union id="vnb"><field name="u" type="v16u"/><field name="s" type="v16i"/></union>
<union id="vnq"><field name="u" type="v1u"/><field name="s" type="v1i"/></union>
<union id="aarch64v">
<field name="d" type="vnd"/><field name="s" type="vns"/><field name="h" type="vnh"/><field name="b" type="vnb"/>
<field name="q" type="vnq"/>
</union>
""",
    "org.gnu.gdb.aarch64.tls": "",
}


def description() -> bytes:
    """target.xml (manual, appendix G)."""
    groups = zip(_TYPES.items(), (CORE, FPU, TLS), strict=True)
    features = "".join(
        f'<feature name="{name}">\n{types}'
        + "".join(f'<reg name="{r.name}" bitsize="{8 * r.size}" type="{r.type}"/>\n' for r in registers)
        + "</feature>\n"
        for (name, types), registers in groups
    )
    return (
        '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n<target>\n'
        f"<architecture>aarch64</architecture>\n<osabi>GNU/Linux</osabi>\n{features}</target>\n"
    ).encode()


def read(cpu: Cpu, number: int) -> bytes:
    """A register's bytes; raises IndexError for one that is not there."""
    register = REGISTERS[number]
    value = cpu.reg(register.ours) & ((1 << 8 * register.size) - 1)
    return value.to_bytes(register.size, "little")


def write(cpu: Cpu, number: int, data: bytes) -> None:
    """Set a register; raises IndexError or UserError."""
    register = REGISTERS[number]
    if len(data) != register.size:
        raise UserError(f"{register.name} has {register.size} bytes, not {len(data)}", "Give all of them.")
    cpu.set_reg(register.ours, int.from_bytes(data, "little"))


# gdb/signals.def: numbers of its own, the same on all systems.
_FROM_LINUX: Final = {
    **{n: n for n in (1, 2, 3, 4, 5, 6, 8, 9, 11, 13, 14, 15, 21, 22, 24, 25, 26, 27, 28)},
    7: 10, 10: 30, 12: 31, 17: 20, 18: 19, 19: 17, 20: 18, 23: 16, 29: 23, 30: 32, 31: 12, 32: 77, 64: 78,
    **{n: n + 12 for n in range(33, 64)},
}  # fmt: skip
_TO_LINUX: Final = {theirs: ours for ours, theirs in _FROM_LINUX.items()}
_UNKNOWN: Final = 143


def to_gdb(signal: int) -> int:
    """gdb's number of a signal of Linux."""
    return _FROM_LINUX.get(signal, _UNKNOWN)


def from_gdb(signal: int) -> int:
    """Linux's number of a signal of gdb, 0: none."""
    return _TO_LINUX.get(signal, 0)
