"""ACPI: the writer of AML, sums and pointers of tables, what firmware's linker makes of them, and what iasl says."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
from dbt.machine.boards import Options, load
from dbt.machine.boards.acpi import aml
from dbt.machine.boards.acpi.devices import short
from dbt.machine.boards.acpi.loader import dump, files, image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Command

BOARDS = (("pc", 2, 2), ("virt", 2, 2), ("virt", 3, 3))  # name, GIC, CPUs


def tables(name: str, gic: int, cpus: int) -> dict[str, bytes]:
    board = load(name)
    return board.acpi(board.build(Options(gic=gic, cpus=cpus)))


def taken(found: dict[str, bytes], memory: bytes, at: int) -> bytes:
    """The table at an offset, with a right sum; `found` has it then."""
    size = struct.unpack_from("<I", memory, at + 4)[0]
    data = memory[at : at + size]
    signature = data[:4].decode()
    assert signature == "FACS" or sum(data) % 256 == 0, signature
    found[signature] = data
    return data


def checked(pointer: bytes, memory: bytes, base: int) -> dict[str, bytes]:
    """All tables that a system finds from the pointer, with their sums looked at, by signature."""
    assert (pointer[:8], pointer[15]) == (b"RSD PTR ", 2)
    assert sum(pointer[:20]) % 256 == sum(pointer) % 256 == 0
    rsdt, length, xsdt = struct.unpack_from("<IIQ", pointer, 16)
    assert length == len(pointer) == 36
    found: dict[str, bytes] = {}
    narrow, wide = taken(found, memory, rsdt - base)[36:], taken(found, memory, xsdt - base)[36:]
    entries = [address for (address,) in struct.iter_unpack("<Q", wide)]
    assert [address for (address,) in struct.iter_unpack("<I", narrow)] == entries
    for address in entries:
        data = taken(found, memory, address - base)
        if data[:4] == b"FACP":
            facs, dsdt = struct.unpack_from("<II", data, 36)
            assert struct.unpack_from("<Q", data, 140)[0] == dsdt
            taken(found, memory, dsdt - base)
            if facs:
                assert facs % 64 == 0
                taken(found, memory, facs - base)
    return found


@pytest.mark.parametrize(("name", "gic", "cpus"), BOARDS)
def test_pointers_and_sums_are_right(name: str, gic: int, cpus: int) -> None:
    made = tables(name, gic, cpus)
    found = {base: checked(*image(made, base), base) for base in (0x1000, 0x7FFE_0000)}
    assert all(each.keys() == {*made, "RSDT", "XSDT"} for each in found.values())
    assert ("MCFG" in made) == (name == "virt")
    cpu = struct.pack("<BB", 0, 8) if name == "pc" else struct.pack("<BBH", 11, 80, 0)
    assert made["APIC"].count(cpu) >= cpus


def firmware(given: dict[str, bytes]) -> tuple[bytearray, bytearray, int]:
    """What the loader of firmware does with the files (QEMU's docs/specs/acpi_hw: bios-linker-loader)."""
    script = given["etc/table-loader"]
    where: dict[str, int] = {}
    content: dict[str, bytearray] = {}
    assert len(script) % 128 == 0

    def text(data: bytes) -> str:
        return data.rstrip(b"\0").decode()

    for at in range(0, len(script), 128):
        entry = script[at : at + 128]
        (command,) = struct.unpack_from("<I", entry)
        if command == 1:
            raw, align, zone = struct.unpack_from("<56sIB", entry, 4)
            assert align & (align - 1) == 0
            where[text(raw)] = 0xF_6000 if zone == 2 else 0x7FF0_0000
            content[text(raw)] = bytearray(given[text(raw)])
        elif command == 2:
            into, source, offset, size = struct.unpack_from("<56s56sIB", entry, 4)
            data = content[text(into)]
            value = int.from_bytes(data[offset : offset + size], "little") + where[text(source)]
            data[offset : offset + size] = value.to_bytes(size, "little")
        else:
            assert command == 3
            raw, offset, start, length = struct.unpack_from("<56sIII", entry, 4)
            data = content[text(raw)]
            data[offset] = (data[offset] - sum(data[start : start + length])) & 0xFF
    return content["etc/acpi/rsdp"], content["etc/acpi/tables"], where["etc/acpi/tables"]


@pytest.mark.parametrize(("name", "gic", "cpus"), BOARDS)
def test_firmware_links_what_fw_cfg_has(name: str, gic: int, cpus: int) -> None:
    made = tables(name, gic, cpus)
    pointer, memory, base = firmware(files(made))
    assert checked(bytes(pointer), bytes(memory), base) == checked(*image(made, base), base)


def test_the_guest_reads_the_files_from_fw_cfg() -> None:
    machine = load("pc").build(Options(ram=5 << 30))
    out, read = machine.ports.write, machine.ports.read

    def item(key: int, size: int) -> bytes:
        out(0x510, 2, key)
        return bytes(read(0x511, 1) for _ in range(size))

    count = int.from_bytes(item(0x19, 4), "big")
    directory = item(0x19, 4 + 64 * count)[4:]
    found = {
        directory[at + 8 : at + 64].rstrip(b"\0").decode(): struct.unpack_from(">IH", directory, at)
        for at in range(0, len(directory), 64)
    }
    assert {"etc/e820", "etc/acpi/rsdp", "etc/acpi/tables", "etc/table-loader"} <= found.keys()
    size, key = found["etc/e820"]
    assert list(struct.iter_unpack("<QQI", item(key, size))) == [(0, 0xC000_0000, 1), (1 << 32, 2 << 30, 1)]
    size, key = found["etc/acpi/rsdp"]
    assert item(key, size)[:8] == b"RSD PTR "


@pytest.mark.needs("iasl", "acpixtract")
@pytest.mark.parametrize(("name", "gic", "cpus"), BOARDS)
def test_iasl_takes_all_tables(dragoman: Command, tmp_path: Path, name: str, gic: int, cpus: int) -> None:
    words = ("machine", name, "--gic", str(gic), "--cpus", str(cpus), "--dump-acpi", f"{tmp_path}/dump")
    assert dragoman(*words).returncode == 0

    def tool(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        text = done.stdout + done.stderr
        assert done.returncode == 0, text
        return text

    tool("acpixtract", "-a", "dump")
    for file in sorted(tmp_path.glob("*.dat")):
        if file.name not in {"rsdp.dat", "facs.dat"}:
            said = tool("iasl", "-d", file.name)
            source = file.with_suffix(".dsl").read_text()
            assert not re.search(r"error|warning|invalid|unknown|incorrect", said + source, re.IGNORECASE), file.name
    assert "0 Errors, 0 Warnings, 0 Remarks" in tool("iasl", "dsdt.dsl")
    text = (tmp_path / "dsdt.dsl").read_text()
    assert text.count("Package (0x04)") == 128 + (name == "pc")
    assert 'EisaId ("PNP0501")' in text if name == "pc" else text.count('"LNRO0005"') == 32
    if name == "pc":
        links = re.findall(r"^ +\\_SB\.LNK([A-D]), $", text, re.MULTILINE)
        assert links == ["ABCD"[(slot + pin - 1) % 4] for slot in range(32) for pin in range(4)]
    shutil.rmtree(tmp_path)


@pytest.mark.needs("acpiexec")
def test_an_interpreter_of_aml_runs_the_methods(tmp_path: Path) -> None:
    made = {board: tables(board, 2, 1)["DSDT"] for board in ("pc", "virt")}

    def run(board: str, what: str) -> str:
        (tmp_path / "dsdt.aml").write_bytes(made[board])
        words = ("acpiexec", "-b", f"execute {what}", "dsdt.aml")
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
        assert not re.search(r"error|warning", done.stdout + done.stderr, re.IGNORECASE), done.stdout
        return done.stdout[done.stdout.index("Evaluating") :]

    assert "[Integer] = 000000000000000B" in run("pc", "\\_SB.LNKA._STA")
    assert "89 06 00 09 01 00 00 00 00 79 00" in run("pc", "\\_SB.LNKD._CRS")
    assert "No object was returned" in run("pc", "\\_SB.LNKA._DIS")
    assert "47 01 F8 03 F8 03 01 08 22 10 00 79 00" in run("pc", "\\_SB.PCI0.ISA.COM1._CRS")
    numbers = [int(number, 16) for number in re.findall(r"\[Integer\] = (\w+)", run("virt", "\\_SB.PCI0._PRT"))]
    rows = [numbers[at : at + 4] for at in range(0, len(numbers), 4)]
    assert rows == [[slot << 16 | 0xFFFF, pin, 0, 35 + (slot + pin) % 4] for slot in range(32) for pin in range(4)]


def test_the_text_is_as_acpidump_prints_it() -> None:
    text = dump({"HPET": b"HPET" + bytes(range(36, 52))})
    assert "HPET @ 0x0000000000000000\n    0000: 48 50 45 54 24 25 26" in text
    assert text.splitlines()[1].endswith("  RSD PTR .DRGMAN.")


@pytest.mark.parametrize(
    ("made", "raw"),
    [  # by hand, from chapter 20 of the specification
        (aml.integer(0), "00"),
        (aml.integer(1), "01"),
        (aml.integer(0xFF), "0a ff"),
        (aml.integer(0x100), "0b 0001"),
        (aml.integer(0x12345678), "0c 78563412"),
        (aml.integer(1 << 32), "0e 0000000001000000"),
        (aml.term("AB"), "0d 4142 00"),
        (aml.path("\\_SB"), "5c 5f53425f"),
        (aml.path("A.B"), "2e 415f5f5f 425f5f5f"),
        (aml.path("^^X"), "5e5e 585f5f5f"),
        (aml.path("\\"), "5c 00"),
        (aml.path("A.B.C"), "2f 03 415f5f5f 425f5f5f 435f5f5f"),
        (aml.eisa_id("PNP0A03"), "0c 41d00a03"),
        (aml.name("_UID", 5), "08 5f554944 0a05"),
        (aml.package(1, 2), "12 05 02 01 0a02"),
        (aml.buffer(bytes(58)), "11 3d 0a3a" + "00" * 58),
        (aml.buffer(bytes(61)), "11 4104 0a3d" + "00" * 61),
        (aml.method("_STA", 0, aml.give(0x0F)), "14 09 5f535441 00 a4 0a0f"),
        (aml.region("PRR", aml.PCI_CONFIG, 0x60, 4), "5b80 5052525f 02 0a60 0a04"),
        (aml.fields("PRR", ("A", 8), ("B", 128)), "5b81 11 5052525f 01 415f5f5f 08 425f5f5f 4008"),
        (aml.resources(aml.irq(4)), "11 08 0a05 221000 7900"),
    ],
)
def test_the_writer_of_aml(made: bytes, raw: str) -> None:
    assert made == bytes.fromhex(raw)


def test_what_the_writer_refuses() -> None:
    for text in ("TOOLONG", "A-B", "A.BCDEF"):
        with pytest.raises(ValueError, match="no name"):
            aml.path(text)
    with pytest.raises(ValueError, match="64 bits"):
        aml.integer(1 << 64)
    assert [short(text) for text in ("com1", "fw_cfg", "virtio31", "keyboard", "uart")] == [
        "COM1", "FWCF", "VI31", "KEYB", "UART",
    ]  # fmt: skip
