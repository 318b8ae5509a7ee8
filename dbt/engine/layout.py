"""The structs that translated code, the native runtime and Python share; each is declared here and nowhere else.

Everything that the runtime knows lives in these structs, outside of Python's own buffers (DESIGN, section 13), so
that native code could run without Python attached. Offsets are taken from the declarations, never written as numbers.
"""

from __future__ import annotations

from dbt.native import Arr, Ptr, Struct, array, i32, i64, struct, u8, u16, u32, u64

from .formats import NUMBERS, FormInfo, Node, OperandInfo

GUEST_BYTES = 2048  # of registers at the start of Env; a register token is a byte offset into it
JUMP_CACHE_ENTRIES = 4096
TOKENS = 6  # register tokens of a record
VARIANTS = 8  # stencils of a form: bits WIDE, NO_FLAGS, POLL
WIDE, NO_FLAGS, POLL = 1, 2, 4
CONDITIONS = 16
FUSED_STENCIL = 1 << 31  # in the value of EXIT_STENCIL: the index is one of a fused pair
FUSED_VARIANTS = 4  # of a fused pair: bits WIDE, POLL_FUSED
POLL_FUSED = 2
MAX_BLOCK = 64  # guest instructions of a block
MAX_PARTS = 32  # steps of a superinstruction
MAX_HELPERS = 64
NOWHERE = 0xFFFFFFFFFFFFFFFF  # no guest address: nothing is at an odd place
LOOKS = 4  # stretches of code that liveness may look at for one block
LOOK_AHEAD = 8  # instructions looked at behind a block for liveness
PAGE_SIZE = 4096  # of the guest
PAGE_CACHE = 256
MAX_STOPS = 4096  # addresses at which to stop

# Why translated code returned to the runtime, or the runtime to Python (Env.exit).
EXIT_NONE = 0
EXIT_SYSCALL = 1  # svc: pc is the next instruction
EXIT_UNDEFINED = 2  # an encoding that no row covers, or one that is UNDEFINED: pc is its address
EXIT_BREAKPOINT = 3  # brk: pc is its address, value its immediate
EXIT_FAULT = 4  # a data access: pc is the instruction
EXIT_FETCH = 5  # pc is not executable
EXIT_ALIGNMENT = 6  # pc is the instruction, value the address
EXIT_POLL = 7  # the poll word was set: pc is where to go on
EXIT_BUDGET = 8  # the budget would be exceeded by the block at pc
EXIT_UNTIL = 9  # pc is in the set of stop addresses
EXIT_ICACHE = 10  # instruction cache maintenance by address (value): pc is the next instruction
EXIT_STENCIL = 11  # a stencil is not compiled yet: value is its index; pc the block
EXIT_LINK = 12  # a direct branch to pc that is not patched yet: site is the displacement
EXIT_INDIRECT = 13  # an indirect branch to pc that the jump cache does not know
EXIT_UNIMPLEMENTED = 14  # value: a number of dbt.engine.layout.UNIMPLEMENTED; pc is the instruction
EXIT_HELPER = 15  # a native helper failed: value is its code
EXIT_FULL = 16  # the code arena is full
EXIT_BUS = 17  # as EXIT_FAULT, beyond the end of a mapped file
EXIT_HINT = 18  # wfi/wfe/yield outside user mode: pc is the next instruction
EXIT_HOT = 19  # the block at pc has been entered often: it may become a region
EXIT_INSTRUMENT = 20  # what is inserted into the block at pc is not known yet; value: its records, in Ctx.records
EXIT_EVENT = 21  # an insertion before the instruction at pc wants Python: value is its number, site where it goes on

EXIT_NAMES = (
    "none", "syscall", "undefined", "breakpoint", "fault", "fetch", "alignment", "poll", "budget", "until",
    "icache", "stencil", "link", "indirect", "unimplemented", "helper", "full", "bus", "hint", "hot",
    "instrument", "event",
)  # fmt: skip


@struct
class JumpEntry(Struct):
    """One entry of the inline jump cache and of the block table: guest PC to host code. code 0: empty."""

    pc: u64
    code: u64


@struct
class Env(Struct):
    """The state of one virtual CPU. Translated code reaches all of it at fixed offsets from one pinned register."""

    guest: Arr[u8] = array(GUEST_BYTES)  # the guest's register file: see frontends/<guest>/state.py
    pc: u64
    exit: u64  # EXIT_...
    value: u64  # what belongs to the exit: see EXIT_...
    site: u64  # EXIT_LINK: host address of the displacement to patch, of the interpreter of Step.link
    flags: Arr[u64] = array(4)  # the flag words n, z, c, v while outside of translated code
    poll: u32  # not 0: leave at the next poll
    mxcsr: u32  # the guest's floating-point control and sticky flags, in the host's form
    host_mxcsr: u32
    in_code: u32  # 1 between the entry stencil and the leave stencil
    base: u64  # host address of guest address 0
    mask: u64  # what a guest address is masked with before base is added
    jump_cache: Ptr[JumpEntry]
    entry_code: u64  # where the entry stencil goes
    host_sp: u64  # stack pointer that the leave stencil needs; set by the entry stencil
    fault_pc: u64  # host PC of the last fault; of the interpreter the Step that left
    fault_address: u64  # host address as the kernel reported it (0 for a non-canonical one)
    fault_error: u64  # page-fault error code of the host: bit 1: a write
    budget: i64  # instructions left, counted at block heads when counting is on
    block: u64  # where the block begins that was counted last
    helpers: Arr[u64] = array(MAX_HELPERS)  # addresses of native helpers, in the order of engine/helpers.py
    ctx: u64  # address of Ctx
    step: u64  # of the interpreter: the Step, while its handler needs the register for something else; else 0
    leave_code: u64  # of the interpreter: the leave handler, for code that is mapped from other files


@struct
class Record(Struct):
    """One decoded guest instruction (or a part of one): a form, its operand tokens and immediates."""

    form: u16
    variant: u8  # bits WIDE, NO_FLAGS, POLL: chosen between decoding and emission
    length: u8  # of the guest instruction in bytes
    r: Arr[u16] = array(TOKENS)  # register tokens: byte offsets into Env.guest
    imm: i64
    target: i64  # a branch target (absolute), or a second immediate
    pc: u64


@struct
class Step(Struct):
    """What the interpreter runs: a record and the handler for it. Those of a block lie behind each other.

    `link` is the address of the step that a direct branch leads to. Until that is known it is the address of
    `unlinked`, which stands for a step whose handler leaves with EXIT_LINK.
    """

    handler: u64
    link: u64
    unlinked: u64
    record: Record


@struct
class Values(Struct):
    """What fills holes of a stencil beside its record."""

    npc: i64  # the next guest PC
    site: i64
    count: i64
    numbers: Arr[i64] = array(NUMBERS)  # of an insertion


@struct
class Part(Struct):
    """A step as part of a superinstruction (superinstructions.py): its first PART_KEY bytes are what it is known by."""

    number: u32  # of its handler, as in EXIT_STENCIL
    r: Arr[u16] = array(TOKENS)
    imm: i64
    target: i64  # 0 for a branch, whose target is read from the step
    handler: u64  # of the superinstruction that begins with this step; 0: none does
    span: u64  # steps of one that would begin here and is not compiled; 0: none


PART_KEY = 32


@struct
class Insertion(Struct):
    """Code of a tool's that runs before an instruction of a block: see engine/inserted.py."""

    index: u32  # of the record
    stencil: u32  # offset from Ctx.pack
    r: Arr[u16] = array(TOKENS)  # its own register tokens; imm, target and pc are the record's
    pad: u32
    numbers: Arr[i64] = array(NUMBERS)


MAX_INSERTIONS = 1024  # of a block


@struct
class Block(Struct):
    """A translated block. Host offsets of its instructions are u16s at Ctx.offsets[first .. first + n]."""

    pc: u64
    code: u64
    size: u32  # host bytes
    n: u32  # guest instructions
    guest_size: u32
    first: u32
    hash: u64  # of its guest bytes and of those looked at, see table.hash_block
    looks: Arr[u64] = array(LOOKS)  # where liveness looked ahead, LOOK_AHEAD instructions each; NOWHERE: it did not


@struct
class Mapping(Struct):
    """Part of the guest address space: [start, end), PROT_ bits."""

    start: u64
    end: u64
    prot: u32
    pad: u32


@struct
class Pass(Struct):
    """A guest system call that native code may make by itself: see engine/syscalls.py."""

    host: i32  # the host's number, -1: Python makes this call
    pointers: u8  # bit i: argument i is a guest address (0 stays 0)
    fds: u8  # bit i: argument i is a descriptor, which may not be one of ours
    kind: u8  # WAITS, MAKES
    pad: u8
    sizes: Arr[u32] = array(6)  # bytes at pointer i, for each count
    counts: Arr[u8] = array(8)  # 0: one; else 1 + the argument that says how many


N_PASS = 512
WAITS, MAKES = 1, 2  # a call may block, interrupted by signals; it gives a descriptor, which may not be one of ours
SYSCALL_PERFORM, SYSCALL_INTERRUPTED, SYSCALL_NOT_STARTED = 0, 4, 512  # Env.value of EXIT_SYSCALL


@struct
class Landing(Struct):
    """An access in a region that may fault, and the code that writes the guest's state to Env then and leaves."""

    access: u32  # offsets from Ctx.regions
    landing: u32
    pc: u64  # guest address of the instruction


@struct
class Ctx(Struct):
    """What translation needs: tables, stencils, the code arena, blocks. One for each address space."""

    # decoder (frontends/tables.py)
    nodes: Ptr[Node]
    children: Ptr[i32]
    forms: Ptr[FormInfo]
    operands: Ptr[OperandInfo]
    tokens: Ptr[u16]
    constants: Ptr[i64]
    # stencils: 0 while no pack is mapped
    pack: u64
    stencils: Ptr[u32]
    fused: Ptr[u32]
    special: Ptr[u32]
    rodata: u64
    leave: u64  # host address of the leave stencil in the arena
    entry: u64  # host address of the entry stencil in the arena
    code: u64  # host code in which guest accesses may fault
    code_end: u64
    # the arena: hot code grows up from the start, link stubs grow down from the end
    arena: u64
    arena_end: u64
    hot_start: u64
    hot: u64
    cold: u64
    # blocks
    table: Ptr[JumpEntry]  # open addressing, table_mask + 1 entries
    table_mask: u64
    table_used: u64
    blocks: Ptr[Block]
    n_blocks: u64
    max_blocks: u64
    offsets: Ptr[u16]
    n_offsets: u64
    max_offsets: u64
    next_pc: u64  # translate_one: where the block falls through to
    n_looks: u64  # live_flags: where it looked ahead for the block in hand
    looks: Arr[u64] = array(LOOKS)
    block_flags: u64  # read_block: the flags that its instructions write
    records: Ptr[Record]  # scratch: MAX_BLOCK + LOOK_AHEAD of them
    parts: Ptr[Part]  # scratch: MAX_BLOCK of them, of the block in hand
    n_missing: u64  # superinstructions of the block in hand that are not compiled
    supers: u64  # the SuperHead that is mapped; 0: none is
    page_tags: Ptr[u64]  # PAGE_CACHE guest page numbers + 1 (0: empty)
    page_data: Ptr[u8]  # their bytes, PAGE_SIZE each: translation reads these, so it can not fault
    # guest memory that may be executed
    mappings: Ptr[Mapping]
    n_mappings: u64
    base: u64
    mask: u64
    # modes: bit MODE_...
    mode: u64
    max_block: u64  # guest instructions of a block: MAX_BLOCK, 1 for single step
    stops: Ptr[u64]  # sorted addresses at which to stop (EXIT_UNTIL)
    n_stops: u64
    # figures for --stats
    n_instructions: u64  # translated
    host_bytes: u64
    n_links: u64
    n_indirect: u64
    n_entries: u64
    n_flushes: u64
    n_dropped: u64  # blocks and regions, without a flush
    n_dead: u64  # the same, since the last flush
    n_syscalls: u64  # made natively
    # system calls: Pass[N_PASS]; where the guest keeps number, arguments and result (byte offsets into Env.guest)
    passes: Ptr[Pass]
    syscall_number: u32
    syscall_result: u32
    syscall_args: Arr[u32] = array(6)
    fd_limit: u64  # descriptors from here on are ours
    limit: u64  # guest addresses are below
    jump_cache: Ptr[JumpEntry]
    # instrumentation (MODE_INSTRUMENT)
    insertions: Ptr[Insertion]  # of the block at `instrumented`, in order of their records
    n_insertions: u64
    insertion: u64  # the next one to be emitted
    instrumented: u64  # all ones: no block
    resume: u64  # host address at which the next run goes on, behind an event; 0: at env.pc
    empty_cache: Ptr[JumpEntry]  # stands in for jump_cache while a poll is wanted: every indirect branch leaves
    # regions: what the optimizer made, behind the arena
    counters: Ptr[u32]  # entries left of each block, by its index, where MODE_HOT is on
    threshold: u64  # what they start from
    regions: u64
    regions_end: u64
    landings: Ptr[Landing]  # by access
    n_landings: u64


SIGNAL_RING = 64
SIGINFO_BYTES = 128


@struct
class SignalRecord(Struct):
    """A host signal that arrived for the guest."""

    signo: u64
    info: Arr[u8] = array(SIGINFO_BYTES)


MAX_CPUS = 64  # of one process


@struct
class SignalArea(Struct):
    """What the signal handlers know. One for the process; they find it through a word in the runtime image."""

    env: u64  # the Env that leaves when a signal was noted, 0: none
    window_start: u64  # host code in which a system call has not begun yet: see host_x86_64.SYSTEM_CALL
    window_end: u64
    window_abort: u64
    head: u64  # records noted so far
    tail: u64  # records taken by Python so far
    previous: Arr[u64] = array(65)  # handlers that were there before ours: 0 default, 1 ignore
    cpus: Arr[u64] = array(MAX_CPUS)  # all Envs, one of which has made a fault; 0: no CPU
    ring: Arr[SignalRecord] = array(SIGNAL_RING)
    guests: u64  # programs that run here: signals that somebody sends are theirs
    handler: u64  # ours
    masks: Arr[u64] = array(65)  # of our actions for faults; an older action of ours that somebody put back has another
    crashed: u64  # the thread whose fault was passed on to a handler from before, 0: none


MODE_COUNT = 1  # a count stencil at every block head
MODE_NO_LIVENESS = 2  # keep every flag write (debugging)
MODE_NO_FUSION = 4
MODE_STEPS = 16  # the interpreter: blocks are steps, stencils are handlers
MODE_ALONE = 32  # of the interpreter: a block that leads nowhere
MODE_EXACT_FLAGS = 8  # flags are exact at every access that may fault: a guest handler may look at them
MODE_HOT = 64  # blocks count their entries (SPECIAL_HOT), of stencils unless instructions are counted; see emit.py
MODE_INSTRUMENT = 128  # blocks have insertions: EXIT_INSTRUMENT asks for them
MODE_ALL_FLAGS = 256  # flags are exact at every instruction
