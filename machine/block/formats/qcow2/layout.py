"""What a qcow2 file consists of (docs/interop/qcow2.txt): header, extensions, entries of tables, bits, limits."""

from __future__ import annotations

from typing import NamedTuple

from dbt.machine.block.errors import ImageCorrupt
from dbt.machine.block.structure import Structure, raw, u8, u16, u32, u64

MAGIC = 0x514649FB

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << n for n in range(5))
INCOMPATIBLE = {
    0: "dirty bit",
    1: "corrupt bit",
    2: "external data file",
    3: "compression type",
    4: "extended L2 entries",
}
LAZY_REFCOUNTS = 1
COMPATIBLE = {0: "lazy refcounts"}
BITMAPS, RAW_DATA_FILE = 1, 2
AUTOCLEAR = {0: "bitmaps", 1: "raw external data"}

COPIED = 1 << 63  # L1 and L2 entries: the refcount is exactly one
COMPRESSED = 1 << 62  # L2 entries
ZERO = 1  # L2 entries without subclusters
OFFSET = 0x00FF_FFFF_FFFF_FE00  # of tables and clusters in L1, L2 and refcount table entries
RESERVED_L1 = ~(OFFSET | COPIED) & (1 << 64) - 1
SUBCLUSTERS = 32
ALL_ALLOCATED = (1 << 32) - 1

MAX_L1 = 32 << 20  # bytes
MAX_REFCOUNT_TABLE = 8 << 20
MAX_SNAPSHOTS = 65536
MAX_SNAPSHOT_TABLE = 64 << 20
MAX_SNAPSHOT_EXTRA = 1024
MAX_BACKING_NAME = 1023
MAX_BITMAPS = 65535
MAX_BITMAP_DIRECTORY = 64 << 20
MAX_SIZE = 1 << 62

EXT_END, EXT_BACKING_FORMAT, EXT_FEATURES, EXT_BITMAPS = 0, 0xE2792ACA, 0x6803F857, 0x23852875
EXT_CRYPTO, EXT_DATA_FILE = 0x0537BE77, 0x44415441
CRYPT_METHODS = {1: "AES", 2: "LUKS"}
COMPRESSION_TYPES = ("zlib", "zstd")


class HeaderV2(Structure, order=">"):
    """Section "Header", up to version 2."""

    magic = u32(only=(MAGIC,), form="hex")
    version = u32(3, only=(2, 3))
    backing_file_offset = u64(form="hex")
    backing_file_size = u32(maximum=MAX_BACKING_NAME)
    cluster_bits = u32(16, minimum=9, maximum=21)
    size = u64(maximum=MAX_SIZE)
    crypt_method = u32(maximum=2)
    l1_size = u32(maximum=MAX_L1 // 8)
    l1_table_offset = u64(form="hex")
    refcount_table_offset = u64(form="hex")
    refcount_table_clusters = u32(maximum=MAX_REFCOUNT_TABLE // 512)
    nb_snapshots = u32(maximum=MAX_SNAPSHOTS)
    snapshots_offset = u64(form="hex")


class HeaderV3(HeaderV2, order=">"):
    """The fields that version 3 adds."""

    incompatible_features = u64(bits=INCOMPATIBLE)
    compatible_features = u64(bits=COMPATIBLE)
    autoclear_features = u64(bits=AUTOCLEAR)
    refcount_order = u32(4, maximum=6)
    header_length = u32(112, minimum=104)


class HeaderRest(Structure, order=">"):
    """Section "Header", additional fields: there if header_length says so."""

    compression_type = u8()
    padding = raw(7)


class Extension(Structure, order=">"):
    """The head of a header extension; its data follow, padded to 8 bytes."""

    type = u32(form="hex")
    length = u32()


class FeatureName(Structure, order=">"):
    """One entry of the feature name table."""

    type = u8()
    bit = u8()
    name = raw(46, form="text")


class BitmapsExtension(Structure, order=">"):
    """Section "Bitmaps extension"."""

    nb_bitmaps = u32(minimum=1, maximum=MAX_BITMAPS)
    reserved = u32(only=(0,))
    bitmap_directory_size = u64(maximum=MAX_BITMAP_DIRECTORY)
    bitmap_directory_offset = u64(form="hex")


class BitmapEntry(Structure, order=">"):
    """One entry of the bitmap directory; extra data and name follow, padded to 8 bytes."""

    bitmap_table_offset = u64(form="hex")
    bitmap_table_size = u32(maximum=0x800_0000)
    flags = u32(bits={0: "in use", 1: "auto", 2: "extra data compatible"})
    type = u8(1, only=(1,))
    granularity_bits = u8(16, minimum=9, maximum=31)
    name_size = u16(maximum=1023)
    extra_data_size = u32(maximum=1 << 16)


class SnapshotEntry(Structure, order=">"):
    """One entry of the snapshot table; extra data, id and name follow, padded to 8 bytes."""

    l1_table_offset = u64(form="hex")
    l1_size = u32(maximum=MAX_L1 // 8)
    id_str_size = u16()
    name_size = u16()
    date_sec = u32()
    date_nsec = u32()
    vm_clock_nsec = u64()
    vm_state_size = u32()
    extra_data_size = u32(maximum=MAX_SNAPSHOT_EXTRA)


class SnapshotExtra(Structure, order=">"):
    """The extra data of a snapshot, as version 3 wants them."""

    vm_state_size_large = u64()
    disk_size = u64(maximum=MAX_SIZE)
    icount = u64((1 << 64) - 1)


class Geometry(NamedTuple):
    """What follows from the header: shifts and masks for addresses."""

    cluster_bits: int
    cluster_size: int
    words: int  # 64-bit words of an L2 entry: two with subclusters
    l2_entries: int
    l2_bits: int
    l1_shift: int  # guest address to L1 index
    granule: int  # bytes that can be zero or unallocated by themselves: a cluster or subcluster
    compressed_shift: int

    @classmethod
    def of(cls, cluster_bits: int, *, extended: bool) -> Geometry:
        """For clusters of 2 ** cluster_bits bytes."""
        words = 2 if extended else 1
        l2_bits = cluster_bits - 3 - (words - 1)
        size = 1 << cluster_bits
        granule = size // SUBCLUSTERS if extended else size
        return cls(cluster_bits, size, words, 1 << l2_bits, l2_bits, l2_bits + cluster_bits, granule, 70 - cluster_bits)

    def l1_entries(self, size: int) -> int:
        """L1 entries that a disk of `size` bytes needs."""
        return -(-size >> self.l1_shift)

    def compressed(self, entry: int) -> tuple[int, int]:
        """(offset, bytes) of the compressed data that an L2 entry describes; the bytes end with a sector."""
        offset = entry & (1 << self.compressed_shift) - 1
        sectors = (entry >> self.compressed_shift & (1 << self.cluster_bits - 8) - 1) + 1
        return offset, sectors * 512 - (offset & 511)

    def compressed_entry(self, offset: int, size: int) -> int:
        """The L2 entry for `size` bytes of compressed data at `offset`."""
        sectors = (offset + size - 1 >> 9) - (offset >> 9)
        return COMPRESSED | offset | sectors << self.compressed_shift


def parse_extensions(data: bytes | bytearray, start: int, end: int, name: str) -> list[tuple[int, bytes]]:
    """(type, data) of the header extensions in data[start:end]."""
    found: list[tuple[int, bytes]] = []
    at = start
    while at + Extension.SIZE <= end:
        head = Extension.parse(data, name, at, start=at)
        if head.type == EXT_END:
            break
        at += Extension.SIZE
        if head.length > end - at:
            raise ImageCorrupt(name, f"header extension {head.type:#x} is {head.length} bytes long", offset=at - 4)
        found.append((head.type, bytes(data[at : at + head.length])))
        at += head.length + 7 & -8
    return found


def pack_extensions(extensions: list[tuple[int, bytes]]) -> bytes:
    """The bytes of header extensions, with the end mark."""
    parts = [Extension(type=t, length=len(d)).pack() + d + bytes(-len(d) % 8) for t, d in extensions]
    return b"".join(parts) + bytes(Extension.SIZE)


def feature_names() -> bytes:
    """The feature name table: what the bits are called, for programs that do not know them."""
    tables = enumerate((INCOMPATIBLE, COMPATIBLE, AUTOCLEAR))
    rows = [(kind, bit, name) for kind, table in tables for bit, name in table.items()]
    return b"".join(FeatureName(type=k, bit=b, name=n.encode().ljust(46, b"\0")).pack() for k, b, n in rows)
