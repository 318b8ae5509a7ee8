"""What the files of the cache hold, as structs and numbers: decoder tables, stencil packs, superinstructions.

Native code reads them where they are mapped. As in layout.py, each is declared here and nowhere else.
"""

from __future__ import annotations

from dbt.native import Arr, Struct, array, i32, struct, u8, u16, u32, u64


@struct
class FormInfo(Struct):
    """What the runtime needs to know of a form, derived from its template by frontends/tables.py."""

    mask: u32  # fixed bits of the encoding: a leaf of the decision tree is checked against them
    value: u32
    operands: u32  # index of its first OperandInfo
    n_operands: u8
    flags_read: u8  # bits 8 N, 4 Z, 2 C, 1 V
    flags_written: u8
    flags_killed: u8  # written on every path, not depending on the old value
    ends: u8  # ENDS_...
    wide: u8  # which values the template uses: bits USES_IMM, USES_TARGET, USES_PC, USES_NPC
    fuse_first: u8  # 1 + index among the forms that may start a fused pair, 0: none
    fuse_second: u8  # 1 + condition number (0..15) for a conditional branch on flags, 0: none
    accesses: u8  # 1: may access guest memory, so that it may fault
    updates: u8  # 1: reads what it writes, in one access: where it may not read, Arm calls the fault a read
    part: u8  # of superinstructions: PART_...


ENDS_NO, ENDS_CONDITIONAL, ENDS_ALWAYS = 0, 1, 2  # goes on; may fall through; never falls through
ENDS_DIRECT = 4  # bit: Record.target is a direct branch target
USES_IMM, USES_TARGET, USES_PC, USES_NPC = 1, 2, 4, 8
PART_NEVER, PART_ANYWHERE, PART_LAST = 0, 1, 2  # cannot be a part; may be one; only the last one


@struct
class OperandInfo(Struct):
    """How one operand is taken out of the instruction word: fields are concatenated, first field highest.

    A register operand (kind 0) looks the concatenation up in a table of u16 tokens, an immediate (kind 1: imm,
    kind 2: target) may look it up in a table of i64, is sign-extended from `sign` bits (0: not), shifted left by
    `shift`, and has the base added (0 none, 1 PC, 2 PC with its low 12 bits cleared).
    """

    kind: u8
    slot: u8  # of Record.r for kind 0
    n_fields: u8
    sign: u8
    shift: u8
    pc_base: u8
    has_table: u8
    pad: u8
    table: u32  # index of the table's first element (u16 tokens or i64 values, by kind)
    pos: Arr[u8] = array(4)  # of each field: lowest bit
    width: Arr[u8] = array(4)


@struct
class Node(Struct):
    """An inner node of the decoder's decision tree: go to children[base + (word >> shift & mask)].

    A child >= 0 is another node, a child < 0 is form ~child; form 0 is 'undefined'.
    """

    shift: u32
    mask: u32
    base: u32


@struct
class Hole(Struct):
    """A place in a stencil that is filled in when it is copied."""

    offset: u16  # of the field in the code
    kind: u8  # HOLE_...
    source: u8  # token number for HOLE_REG..
    addend: i32


HOLE_REG32, HOLE_IMM32, HOLE_TARGET32, HOLE_PC32, HOLE_NPC32 = 0, 1, 2, 3, 4
HOLE_REG64, HOLE_IMM64, HOLE_TARGET64, HOLE_PC64, HOLE_NPC64 = 5, 6, 7, 8, 9
HOLE_NEXT = 10  # 32-bit PC-relative: the code behind this stencil
HOLE_TAKEN = 11  # 32-bit PC-relative: the code of the guest address Record.target; patchable
HOLE_LEAVE = 12  # 32-bit PC-relative: the leave stencil
HOLE_RODATA = 13  # 32-bit PC-relative: constants of the stencil pack
HOLE_SITE64 = 14  # special stencils only: the address of the displacement to patch
HOLE_COUNT32 = 15  # special stencils only: instructions of the block
HOLE_IMM8, HOLE_TARGET8 = 16, 17  # one byte: a shift amount, the low byte of the number
HOLE_NUMBER64 = 18  # insertions only: a number of Values; source says which
NUMBERS = 4  # of an insertion


@struct
class SuperEntry(Struct):
    """In a file of superinstructions: the keys of `n` parts follow."""

    n: u32
    head: u32  # offset of its StencilHead; 0: it cannot be compiled


@struct
class SuperHead(Struct):
    """The start of a file of superinstructions. Offsets are from the start of the file."""

    magic: u64
    size: u64  # of the whole file
    checksum: u64  # over everything behind this head
    slots: u32  # u32[n_slots]: offsets of entries by hash, 0: free; open addressing, n_slots is a power of two
    n_slots: u32
    stamp: u32
    stamp_size: u32
    rodata: u32
    entries: u32  # the first one; they lie behind each other
    n_entries: u32
    code: u32  # the first StencilHead


SUPER_MAGIC = 0x3152555045474144  # 'DAGEPUR1', little-endian


@struct
class StencilHead(Struct):
    """In a stencil pack, in front of a stencil's holes and code; code follows the holes, 16-byte aligned."""

    code_size: u16
    n_holes: u16
    code: u32  # offset from this head to the code


STENCIL_HEAD_BYTES = 8


@struct
class PackHead(Struct):
    """The start of a stencil pack file. Offsets are from the start of the file; 0 in an index: not compiled."""

    magic: u64
    size: u64  # of the whole file
    checksum: u64  # over everything behind this head
    n_forms: u32
    n_fusable: u32
    index: u32  # u32[n_forms * VARIANTS]
    fused: u32  # u32[n_fusable * CONDITIONS * FUSED_VARIANTS]
    special: u32  # u32[N_SPECIAL]
    rodata: u32
    stamp: u32  # offset of the text that identifies what this was built from
    stamp_size: u32


PACK_MAGIC = 0x314B434150474144  # 'DAGPACK1', little-endian
HANDLERS_MAGIC = 0x31444E4148474144  # 'DAGHAND1': handlers of the interpreter in the same form, to be run in the file


@struct
class TablesHead(Struct):
    """The start of a decoder tables file (frontends/tables.py). Offsets are from the start of the file."""

    magic: u64
    size: u64  # of the whole file
    checksum: u64  # zlib.crc32 of everything behind this head
    hwcap: u64  # AT_HWCAP and AT_HWCAP2 of the guest, from the features of its rows
    hwcap2: u64
    n_forms: u32
    n_fusable: u32
    nodes: u32
    children: u32
    forms: u32
    operands: u32
    tokens: u32
    constants: u32
    stamp: u32
    stamp_size: u32


TABLES_MAGIC = 0x3142415447415244  # 'DRAGTAB1', little-endian
# Special stencils, indices into PackHead.special.
SPECIAL_ENTRY = 0  # save the host stack pointer, go to Env.entry_code
SPECIAL_LEAVE = 1  # spill the flag words, return to the runtime
SPECIAL_LINK = 2  # Env.pc = target, Env.site = site, exit EXIT_LINK
SPECIAL_COUNT = 3  # Env.budget -= count, Env.block = pc; below 0: undo and exit EXIT_BUDGET with Env.pc = pc
SPECIAL_STOP = 4  # Env.pc = pc, Env.exit = imm, Env.value = target: leave
SPECIAL_POLL = 5  # if Env.poll: Env.pc = pc, exit EXIT_POLL
SPECIAL_JUMP = 6  # go to the code of Record.target (HOLE_TAKEN): the end of a block that falls through
SPECIAL_HOT = 7  # count down the u32 at `site` (of steps: Record.imm); below 0: exit EXIT_HOT with Env.pc = pc
N_SPECIAL = 8
