"""What is on the disk of a VHDX file (MS-VHDX, section 2): structures, GUIDs, states, the checksum."""

from __future__ import annotations

from array import array
from uuid import UUID

from dbt.machine.block.structure import Structure, raw, u16, u32, u64

MIB = 1 << 20
HEADERS = (1 << 16, 2 << 16)
REGION_TABLES = (3 << 16, 4 << 16)
HEADER_BYTES, TABLE_BYTES, SECTOR = 4096, 1 << 16, 4096
BAT = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
METADATA = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
FILE_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
VIRTUAL_DISK_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
VIRTUAL_DISK_ID = UUID("beca12ab-b2e6-4523-93ef-c309e000c746").bytes_le
LOGICAL_SECTOR_SIZE = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le
PHYSICAL_SECTOR_SIZE = UUID("cda348c7-445d-4471-9cc9-e9885251c556").bytes_le
PARENT_LOCATOR = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
LOCATOR_VHDX = UUID("b04aefb7-d19e-4a81-b789-25b8e9445913").bytes_le
NO_GUID = bytes(16)
REQUIRED_REGION, REQUIRED_ITEM = 1, 4
LEAVE_BLOCK_ALLOCATED, HAS_PARENT = 1, 2
MAX_SIZE = 64 << 40

# States of a BAT entry (2.5.1); the offset is in its upper 44 bits, in MiB.
NOT_PRESENT, UNDEFINED, ZEROED, UNMAPPED, UNMAPPED_OLD, FULLY_PRESENT, PARTIALLY_PRESENT = 0, 1, 2, 3, 5, 6, 7
ZEROES = {UNDEFINED, ZEROED, UNMAPPED, UNMAPPED_OLD}
STATE, OFFSET = 7, -MIB & (1 << 64) - 1


class FileTypeIdentifier(Structure, order="<"):
    """2.2.1, at offset 0."""

    Signature = raw(8, only=(b"vhdxfile",), form="text")
    Creator = raw(512)


class Header(Structure, order="<"):
    """2.2.2, at 64 KiB and 128 KiB; the checksum is of 4 KiB."""

    Signature = raw(4, only=(b"head",), form="text")
    Checksum = u32(form="hex")
    SequenceNumber = u64()
    FileWriteGuid = raw(16)
    DataWriteGuid = raw(16)
    LogGuid = raw(16)
    LogVersion = u16()
    Version = u16(only=(1,))
    LogLength = u32()
    LogOffset = u64(form="hex")


class RegionTableHeader(Structure, order="<"):
    """2.2.3.1, at 192 KiB and 256 KiB; the checksum is of 64 KiB."""

    Signature = raw(4, only=(b"regi",), form="text")
    Checksum = u32(form="hex")
    EntryCount = u32(maximum=2047)
    Reserved = u32()


class RegionTableEntry(Structure, order="<"):
    """2.2.3.2."""

    Guid = raw(16)
    FileOffset = u64(form="hex")
    Length = u32()
    Required = u32(bits={0: "required"})


class MetadataTableHeader(Structure, order="<"):
    """2.6.1.1, at the start of the metadata region."""

    Signature = raw(8, only=(b"metadata",), form="text")
    Reserved = u16()
    EntryCount = u16(maximum=2047)
    Reserved2 = raw(20)


class MetadataTableEntry(Structure, order="<"):
    """2.6.1.2; the offset is within the region."""

    ItemId = raw(16)
    Offset = u32()
    Length = u32(maximum=MIB)
    Flags = u32(bits={0: "user", 1: "virtual disk", 2: "required"})
    Reserved2 = u32()


class FileParameters(Structure, order="<"):
    """2.6.2.1."""

    BlockSize = u32(minimum=MIB, maximum=256 * MIB)
    Flags = u32(bits={0: "leave block allocated", 1: "has parent"})


class VirtualDiskSize(Structure, order="<"):
    """2.6.2.2."""

    VirtualDiskSize = u64(maximum=MAX_SIZE)


class SectorSize(Structure, order="<"):
    """2.6.2.4 and 2.6.2.5, logical and physical."""

    SectorSize = u32(512, only=(512, 4096))


class ParentLocatorHeader(Structure, order="<"):
    """2.6.2.6.1."""

    LocatorType = raw(16)
    Reserved = u16()
    KeyValueCount = u16(maximum=1024)


class ParentLocatorEntry(Structure, order="<"):
    """2.6.2.6.2; offsets are within the item, keys and values UTF-16."""

    KeyOffset = u32()
    ValueOffset = u32()
    KeyLength = u16()
    ValueLength = u16()


class LogEntryHeader(Structure, order="<"):
    """2.3.1.1."""

    Signature = raw(4, only=(b"loge",), form="text")
    Checksum = u32(form="hex")
    EntryLength = u32()
    Tail = u32()
    SequenceNumber = u64(minimum=1)
    DescriptorCount = u32()
    Reserved = u32()
    LogGuid = raw(16)
    FlushedFileOffset = u64()
    LastFileOffset = u64()


class LogDescriptor(Structure, order="<"):
    """2.3.1.2 and 2.3.1.3: `zero` (Leading is the length) or `desc` (Trailing and Leading are bytes of the sector)."""

    Signature = raw(4, only=(b"zero", b"desc"), form="text")
    Trailing = raw(4)
    Leading = raw(8)
    FileOffset = u64(form="hex")
    SequenceNumber = u64()


class LogDataSector(Structure, order="<"):
    """2.3.1.4."""

    Signature = raw(4, only=(b"data",), form="text")
    SequenceHigh = u32()
    Data = raw(4084)
    SequenceLow = u32()


def _table() -> array[int]:
    table = array("I")
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


CRC32C = _table()


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """The Castagnoli CRC of `data`."""
    table, crc = CRC32C, 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def sealed(data: bytes) -> bytes:
    """`data` with its checksum, which is in bytes 4 to 8, put right."""
    blank = data[:4] + bytes(4) + data[8:]
    return data[:4] + crc32c(blank).to_bytes(4, "little") + data[8:]


def intact(data: bytes | bytearray) -> bool:
    """Whether the checksum in bytes 4 to 8 is right."""
    return sealed(bytes(data)) == data
