"""A guest for QEMU that does a list of accesses: system registers are not to be reached through qtest, but by a guest.

The list is made by running it on our machine first (`Recorder`); `on_qemu` compiles a small program, lets QEMU run it
with the list in memory, and reads what the guest has read.
"""

from __future__ import annotations

import struct
import subprocess
import time
from typing import TYPE_CHECKING

from tests.machine.qtest import Ours, qemu

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dbt.machine.machine import Machine

    from tests.machine.gicv3 import Cpu

LIST, RESULTS, DONE, ENTRY = 0x4800_0000, 0x4A00_0000, 0x4BFF_FFF0, 0x4008_0000
OPERATION = struct.Struct("<IIQQ")
END, READ, WRITE, MRS, MSR = range(5)
PROGRAM = """
typedef unsigned char u8; typedef unsigned int u32; typedef unsigned long u64;
struct operation { u32 kind, size; u64 where, value; };
#define READ(r) asm volatile("isb; mrs %%0, " #r "; isb" : "=r"(x) :: "memory")
#define WRITE(r) asm volatile("isb; msr " #r ", %%0; isb" :: "r"(x) : "memory")
void begin(void) {
    volatile u64 *result = (volatile u64 *)%(results)#xUL;
    for (volatile struct operation *o = (void *)%(list)#xUL; o->kind; o++) {
        u64 at = o->where, x = o->value;
        if (o->kind == %(read)d) {
            x = o->size == 1 ? *(volatile u8 *)at : o->size == 4 ? *(volatile u32 *)at : *(volatile u64 *)at;
            *result++ = x;
        } else if (o->kind == %(write)d) {
            if (o->size == 1) *(volatile u8 *)at = x;
            else if (o->size == 4) *(volatile u32 *)at = x;
            else *(volatile u64 *)at = x;
        } else if (o->kind == %(mrs)d) {
            switch (at) { %(reads)s }
            *result++ = x;
        } else {
            switch (at) { %(writes)s }
        }
    }
    *(volatile u64 *)%(done)#xUL = 1;
    for (;;) asm volatile("wfi");
}
"""
ISR = 0xC608  # ISR_EL1: which interrupts are at the CPU


class Recorder(Ours):
    """Our machine, and system registers of a CPU: everything is noted."""

    def __init__(self, machine: Machine, cpu: Cpu) -> None:
        super().__init__(machine)
        self.cpu = cpu
        self.operations: list[tuple[int, int, int, int]] = []
        self.results: list[int] = []

    @property
    def reads(self) -> list[tuple[int, int, int, int]]:
        """The operations that have a result."""
        return [operation for operation in self.operations if operation[0] in (READ, MRS)]

    def read(self, address: int, size: int = 4, mask: int = -1) -> int:
        assert mask == -1, "the guest compares everything"
        value = super().read(address, size)
        self.operations.append((READ, size, address, 0))
        self.results.append(value)
        return value

    def write(self, address: int, value: int, size: int = 4) -> None:
        super().write(address, value, size)
        self.operations.append((WRITE, size, address, value))

    def store(self, address: int, data: bytes) -> None:
        raise NotImplementedError("the guest would not do so")

    def __getitem__(self, register: int) -> int:
        irq, fiq = self.cpu.lines
        value = irq << 7 | fiq << 6 if register == ISR else self.cpu[register]
        self.operations.append((MRS, 8, register, 0))
        self.results.append(value)
        return value

    def __setitem__(self, register: int, value: int) -> None:
        self.cpu[register] = value
        self.operations.append((MSR, 8, register, value))


def name_of(register: int) -> str:
    fields = register >> 14, register >> 11 & 7, register >> 7 & 15, register >> 3 & 15, register & 7
    return "S{}_{}_C{}_C{}_{}".format(*fields)


def compiled(folder: Path, used: Mapping[int, set[int]]) -> Path:
    """The program, for these registers: MRS and MSR of each."""
    cases = {
        kind: " ".join(f"case {register:#x}: {macro}({name_of(register)}); break;" for register in sorted(used[kind]))
        for kind, macro in ((MRS, "READ"), (MSR, "WRITE"))
    }
    source = PROGRAM % {
        "results": RESULTS, "list": LIST, "done": DONE, "read": READ, "write": WRITE, "mrs": MRS,
        "reads": cases[MRS], "writes": cases[MSR],
    }  # fmt: skip
    (folder / "program.c").write_text(source)
    words = ["aarch64-linux-gnu-gcc", "-O1", "-ffreestanding", "-nostdlib", "-static", "-mgeneral-regs-only"]
    words += ["-mstrict-align", "-fno-stack-protector", "-Wl,--build-id=none", f"-Wl,-Ttext={ENTRY:#x}", "-Wl,-e,begin"]
    subprocess.run([*words, "-o", str(folder / "program"), str(folder / "program.c")], check=True, timeout=60)
    return folder / "program"


def on_qemu(folder: Path, recorder: Recorder, *command: str) -> list[int]:
    """What the same accesses read there."""
    used: dict[int, set[int]] = {MRS: set(), MSR: set()}
    for kind, _, where, _ in recorder.operations:
        used.setdefault(kind, set()).add(where)
    program = compiled(folder, used)
    operations = (*recorder.operations, (END, 0, 0, 0))
    (folder / "list").write_bytes(b"".join(OPERATION.pack(*operation) for operation in operations))
    words = [*command, "-m", "256", "-kernel", str(program)]
    words += ["-device", f"loader,file={folder}/list,addr={LIST:#x},force-raw=on"]
    with qemu(*words, guest=True) as theirs:
        deadline = time.monotonic() + 60
        while not theirs.read(DONE, 8):
            assert time.monotonic() < deadline, "the guest does not come to its end"
            time.sleep(0.05)
        return list(struct.unpack(f"<{len(recorder.results)}Q", theirs.load(RESULTS, 8 * len(recorder.results))))


def compare(recorder: Recorder, theirs: list[int]) -> None:
    """Every result has to be the same."""
    for (kind, _, where, _), mine, other in zip(recorder.reads, recorder.results, theirs, strict=True):
        assert mine == other, f"{name_of(where) if kind == MRS else hex(where)}: {mine:#x}, qemu {other:#x}"
