"""Forms regions: the control-flow graph that direct branches reach from a hot block, with what is live and dirty in it.

Branches are followed to *warm* blocks, which have been entered some times as well: the others would make compiling
many times as long, and the code no better. They are where the region ends.

Calls are followed like other branches, after everything else, and the place behind a call becomes a *return site*: a
return in the region compares its address with these before it leaves. An indirect jump is followed to warm blocks near
it where some indirect branch has gone: the cases of a switch, the handlers of an interpreter. Flags are live as in
baseline blocks. A register is *dirty* where it may differ from Env. Plain loads and stores *land*: where they fault,
code that leaves writes back what is dirty (backends/llvm/landings.py). Other accesses, and calls of helpers, write it
back before.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.ir.ops import LOAD, OPS, STORE

from .formats import ENDS_ALWAYS, ENDS_CONDITIONAL, ENDS_DIRECT
from .layout import LOOK_AHEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from dbt.frontends.metadata import Metadata
    from dbt.frontends.tables import Decoded, Tables
    from dbt.ir.values import Op, Template

    from .places import Places

    Fetch = Callable[[int], int | None]  # the instruction word at an address, None where nothing may be executed

LIMIT: Final = 500  # instructions of a region
REACH: Final = 1 << 14  # bytes that an indirect jump goes at most to stay in its region
MOST_WAYS: Final = 32  # of an indirect jump inside a region, which has a table of them: they cost time to compile
ALL_FLAGS: Final = 15
MASK64: Final = (1 << 64) - 1
WORD: Final = 64  # bits
FLAGS: Final = 1 << 127  # the bit of the flag words in sets of registers; the others are Places'
_ENDS: Final = ENDS_ALWAYS | ENDS_CONDITIONAL


class Step:
    """One instruction of a region. `live`: flags that are live before it; `reads` and `writes`: sets of registers."""

    __slots__ = ("decoded", "live", "metadata", "reads", "synchronises", "writes")

    def __init__(self, decoded: Decoded, metadata: Metadata, places: Places) -> None:
        self.decoded = decoded
        self.metadata = metadata
        self.reads, self.writes = places.of(decoded)
        self.synchronises = synchronises(decoded.form.template)
        self.live = 0

    @property
    def pc(self) -> int:
        return self.decoded.pc

    @property
    def npc(self) -> int:
        return self.decoded.pc + self.decoded.length

    @property
    def repeats(self) -> bool:
        """Whether it may go to itself (a loop inside one instruction)."""
        return self.metadata.ends & _ENDS == ENDS_CONDITIONAL and not self.metadata.ends & ENDS_DIRECT

    def targets(self) -> list[int]:
        """Where it goes, as far as that is known."""
        ends, found = self.metadata.ends, []
        if ends & ENDS_DIRECT:
            found.append(self.decoded.target & MASK64)
        elif self.repeats:
            found.append(self.pc)
        if ends & _ENDS != ENDS_ALWAYS:
            found.append(self.npc)
        return found


class Block(NamedTuple):
    """Steps in a row; the last one ends it or goes on to another block."""

    steps: list[Step]
    targets: list[int]  # blocks and exits
    returns: bool  # it may go to the return sites
    ways: list[int]  # blocks to which its indirect jump may go

    @property
    def pc(self) -> int:
        return self.steps[0].pc


class Profile(NamedTuple):
    """What has run so far. `warm`: blocks to which branches are followed, None: all; `reached`: by indirect branches.

    The latter come in the order of how often they have been entered, the most often first.
    """

    warm: frozenset[int] | None = None
    reached: tuple[int, ...] = ()


EVERYTHING: Final = Profile()


class Region(NamedTuple):
    """`dirty`: on entry of blocks and exits; `live`: flags on entry of blocks and exits; `used`: registers."""

    entry: int
    blocks: dict[int, Block]  # in an order in which a block comes behind one that leads to it
    return_sites: list[int]
    dirty: dict[int, int]
    live: dict[int, int]
    used: int
    ranges: list[tuple[int, bytes]]  # guest bytes it was made from
    index_bits: int  # a number of so many bits may be added to an address behind the mask (memory.py)

    @property
    def size(self) -> int:
        """Instructions."""
        return sum(len(block.steps) for block in self.blocks.values())

    @property
    def cyclic(self) -> bool:
        """Whether a block may run again without leaving the region."""
        order = {pc: number for number, pc in enumerate(self.blocks)}
        return any(
            order.get(target, len(order)) <= number
            for number, block in enumerate(self.blocks.values())
            for target in successors(block, self.return_sites)
        )


def lands(op: Op) -> bool:
    """Whether an access to memory is a plain move on the host."""
    if op.name == "load" and op.attrs["order"] == "acquire":
        assert op.type is not None
        return op.type.is_int and op.type.width <= WORD  # which the host's moves are as well
    return op.name in {"load", "store"} and op.attrs["order"] == "relaxed"


def synchronises(template: Template) -> bool:
    """Whether registers must be in Env: at calls of helpers, and at accesses to memory that do not land."""
    return any(op.name == "helper" or (OPS[op.name].effects & (LOAD | STORE) and not lands(op)) for op in template.ops)


def form_region(
    tables: Tables,
    places: Places,
    fetch: Fetch,
    entry: int,
    stops: Collection[int] = (),
    limit: int = LIMIT,
    *,
    all_flags: bool = False,
    profile: Profile = EVERYTHING,
    index_bits: int = 0,
) -> Region | None:
    """The region at `entry`; None if there is no instruction. Blocks at `stops` stay outside.

    `all_flags`: no flags are dead. `index_bits`: see Region.
    """
    words: dict[int, int] = {}
    steps: dict[int, Step] = {}
    warm = profile.warm
    ways: dict[int, list[int]] = {}
    leaders, calls = {entry}, []
    near, far = deque([entry]), deque[int]()
    while near or far:
        pc = near.popleft() if near else far.popleft()
        if pc != entry and warm is not None and pc not in warm:
            continue
        while len(steps) < limit and pc not in steps and pc not in stops:
            word = fetch(pc)
            decoded = tables.decode(word, pc) if word is not None else None
            if word is None or decoded is None or not decoded.form.id:
                break
            words[pc] = word
            step = steps[pc] = Step(decoded, tables.metadata(decoded.form), places)
            if not step.metadata.ends & _ENDS:
                pc = step.npc
                continue
            leaders.update(step.targets())
            if is_call(decoded.form.template):
                calls.append(step)
                leaders.add(step.npc)
                far += [decoded.target & MASK64, step.npc]
            elif hint_of(decoded.form.template) == "jump":
                near_by = [way for way in profile.reached if abs(way - pc) <= REACH and (not warm or way in warm)]
                ways[pc] = near_by[:MOST_WAYS]
                leaders.update(ways[pc])
                near += ways[pc]
            else:
                near += step.targets()
            break
    if entry not in steps:
        return None
    sites = [call.npc for call in calls if call.decoded.target & MASK64 in steps and call.npc in steps]
    blocks = _blocks(steps, leaders, ways)
    blocks = _ordered(blocks, entry, sites)
    sites = [site for site in sites if site in blocks]
    live = _live(tables, fetch, blocks, sites, stops, all_flags=all_flags)
    return Region(entry, blocks, sites, _dirty(blocks, sites, entry), live, _used(blocks), _ranges(words), index_bits)


def is_call(template: Template) -> bool:
    """A direct call: a branch that uses the address of the next instruction."""
    return template.ops[-1].name == "goto" and any(op.name == "npc" for op in template.ops)


def hint_of(template: Template) -> str:
    """What kind of indirect branch ends an instruction: jump, call or return; empty where none does."""
    last = template.ops[-1]
    return str(last.attrs["hint"]) if last.name == "goto_indirect" else ""


def _blocks(steps: dict[int, Step], leaders: set[int], ways: dict[int, list[int]]) -> dict[int, Block]:
    blocks: dict[int, Block] = {}
    leaders = leaders | {step.pc for step in steps.values() if step.repeats}
    for leader in leaders:
        if leader not in steps:
            continue
        run = [steps[leader]]
        while not run[-1].metadata.ends & _ENDS and run[-1].npc in steps and run[-1].npc not in leaders:
            run.append(steps[run[-1].npc])
        last = run[-1]
        inside = [way for way in ways.get(last.pc, ()) if way in steps]
        template = last.decoded.form.template
        blocks[leader] = Block(run, last.targets(), bool(template.ops) and hint_of(template) == "return", inside)
    return blocks


def _ordered(blocks: dict[int, Block], entry: int, sites: list[int]) -> dict[int, Block]:
    """The blocks that are reached, in reverse postorder."""
    done: list[int] = []
    seen = {entry}
    stack = [(entry, iter(successors(blocks[entry], sites)))]
    while stack:
        pc, ways = stack[-1]
        for way in ways:
            if way in blocks and way not in seen:
                seen.add(way)
                stack.append((way, iter(successors(blocks[way], sites))))
                break
        else:
            done.append(pc)
            stack.pop()
    return {pc: blocks[pc] for pc in reversed(done)}


def successors(block: Block, sites: list[int]) -> list[int]:
    """Where a block goes: targets, ways of an indirect jump, and return sites of the region."""
    return [*block.targets, *block.ways, *(sites if block.returns else ())]


def _live(
    tables: Tables,
    fetch: Fetch,
    blocks: dict[int, Block],
    sites: list[int],
    stops: Collection[int],
    *,
    all_flags: bool,
) -> dict[int, int]:
    """Flags live on entry of blocks and exits; Step.live on the way."""
    live = dict.fromkeys(blocks, 0)
    for block in blocks.values():
        for target in block.targets:
            if target not in live:
                live[target] = flags_ahead(tables, fetch, target, stops)
    changed = not all_flags
    if all_flags:
        live = dict.fromkeys(live, ALL_FLAGS)
        for block in blocks.values():
            for step in block.steps:
                step.live = ALL_FLAGS
    while changed:
        changed = False
        for pc, block in reversed(blocks.items()):
            last = block.steps[-1].metadata.ends
            unknown = last & _ENDS == ENDS_ALWAYS and not last & ENDS_DIRECT
            flags = ALL_FLAGS if unknown else 0
            for target in successors(block, sites):
                flags |= live[target]
            for step in reversed(block.steps):
                flags = flags & ~step.metadata.flags_killed | step.metadata.flags_read
                step.live = flags
            if flags != live[pc]:
                live[pc] = flags
                changed = True
    return live


def flags_ahead(tables: Tables, fetch: Fetch, pc: int, stops: Collection[int] = ()) -> int:
    """The flags that code at `pc` may read before it writes them, as variants.live_flags."""
    read = killed = 0
    for _ in range(LOOK_AHEAD):
        word = None if pc in stops else fetch(pc)  # whoever stops there may look at all of them
        if word is None:
            break
        decoded = tables.decode(word, pc)
        if not decoded.form.id:
            break
        info = tables.metadata(decoded.form)
        read |= info.flags_read & ~killed
        killed |= info.flags_killed
        if killed == ALL_FLAGS:
            return read
        if not info.ends & _ENDS:
            pc += decoded.length
        elif info.ends & _ENDS == ENDS_ALWAYS and info.ends & ENDS_DIRECT:
            pc = decoded.target & MASK64
        else:
            break
    return read | ALL_FLAGS & ~killed


def after(step: Step, dirty: int) -> int:
    """What is dirty behind a step."""
    if step.synchronises:
        dirty = 0 if step.live else dirty & FLAGS
    return dirty | step.writes | (FLAGS if step.metadata.flags_written else 0)


def _dirty(blocks: dict[int, Block], sites: list[int], entry: int) -> dict[int, int]:
    """What is dirty on entry of blocks and exits.

    Into a loop that synchronises only comes what the loop itself makes dirty: the rest is written back on the edge that
    enters it (regions.py), once, and not in every round.
    """
    order = {pc: number for number, pc in enumerate(blocks)}
    writes_back = [any(step.synchronises for step in block.steps) for block in blocks.values()]
    heads: set[int] = set()
    for pc, block in blocks.items():
        for target in successors(block, sites):
            if target in order and order[target] <= order[pc] and any(writes_back[order[target] : order[pc] + 1]):
                heads.add(target)
    dirty = dict.fromkeys(blocks, 0)
    dirty[entry] = FLAGS
    waiting = deque(blocks)
    while waiting:
        block = blocks[waiting.popleft()]
        found = dirty[block.pc]
        for step in block.steps:
            found = after(step, found)
        for target in successors(block, sites):
            kept = found
            if target in heads and order[block.pc] < order[target]:
                kept &= FLAGS
            before = dirty.get(target, 0)
            if kept | before != before or target not in dirty:
                dirty[target] = kept | before
                if target in blocks:
                    waiting.append(target)
    return dirty


def _used(blocks: dict[int, Block]) -> int:
    used = 0
    for block in blocks.values():
        for step in block.steps:
            used |= step.reads | step.writes
    return used


def _ranges(words: dict[int, int]) -> list[tuple[int, bytes]]:
    """Runs of instruction words: (address, bytes)."""
    found: list[tuple[int, bytearray]] = []
    for pc in sorted(words):
        if not found or found[-1][0] + len(found[-1][1]) != pc:
            found.append((pc, bytearray()))
        found[-1][1].extend(words[pc].to_bytes(4, "little"))
    return [(pc, bytes(run)) for pc, run in found]


def members(registers: int) -> Iterable[int]:
    """The numbers of the bits of a set."""
    while registers:
        lowest = registers & -registers
        yield lowest.bit_length() - 1
        registers ^= lowest


__all__: Final = [
    "EVERYTHING", "FLAGS", "Block", "Profile", "Region", "Step", "after", "form_region", "members", "successors",
]  # fmt: skip
