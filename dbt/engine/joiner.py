"""Hot blocks of the interpreter: loads the file of superinstructions, and has the worker make it longer meanwhile.

A block counts its entries while superinstructions are missing in it (emit.put_counter) and leaves when there were many.
The first one that does has the file loaded; what is missing then goes to a worker, and the guest runs on. A block that
leaves later finds the answer there: the file is loaded anew, and all blocks are translated again, with what it has now.
Since that costs something each time, it becomes rarer the longer the guest runs.

Programs that are hot come here with everything cached, so nothing slow is imported.
"""

from __future__ import annotations

import ctypes
import os
import time

from dbt.errors import InternalError, UserError

from .cache import say_once
from .formats import SUPER_MAGIC, SuperHead
from .layout import MODE_HOT, PART_KEY, Part
from .runtime import PACK_RESERVE, SNIPPET_ROOM, SUPER_ROOM, DamagedFile, Loaded, trouble_with

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .build import Worker
    from .interpreter import Interpreter

AGAIN = 1 << 14  # entries until a block that has left leaves again
UNANSWERED = 32  # requests at most: those that wait are in a socket
FIRST_PAUSE, LAST_PAUSE = 0.02, 1.0  # seconds between two times that the file is loaded, twice as long each time
DEATHS = 3  # workers that ended meanwhile; then nothing is asked for any more
SUFFIX = "superinstructions"


class Joiner:
    """Superinstructions of one address space."""

    def __init__(self, engine: Interpreter) -> None:
        self._engine = engine
        self._guest = engine.cpu.info.name
        self._name = f"{self._guest}.{SUFFIX}"
        self._worker: Worker | None = None  # while there are answers to come
        self._owner = os.getpid()
        self._unanswered: list[tuple[bytes, ...]] = []  # requests, in their order
        self._wanted: dict[bytes, None] = {}  # what is to be asked for
        self._asked: set[bytes] = set()
        self._started = False
        self._fresh = False  # the file has become longer since it was loaded
        self._pause = FIRST_PAUSE
        self._next = 0.0  # when it may be loaded again
        self._deaths = 0
        self._given_up = False

    @property
    def count(self) -> int:
        """How many superinstructions are loaded."""
        found = int(self._engine.ctx.supers)
        return int(SuperHead.at(found).n_entries) if found else 0

    def close(self) -> None:
        """Let the worker go; what it was asked for already goes to the cache still."""
        self._let_go(broken=bool(self._unanswered))

    def hot(self, pc: int) -> None:
        """The block at `pc` has been entered often. It may have to be translated anew when this returns."""
        if not self._started:
            self._started = True
            if self._load():
                return
        if self._owner != os.getpid():  # a fork: the worker is the parent's
            self._let_go(broken=True)
            self._owner = os.getpid()
            self._asked.clear()
        self._take(wait=False)
        if not self._given_up:
            self._note(self._engine.runtime.plan_block(self._engine.cpu.env_address, pc, AGAIN))
            self._ask()

    def finish(self) -> None:
        """Wait for everything that is wanted (for tests and measurements)."""
        while not self._given_up and (self._wanted or self._unanswered):
            self._ask()
            self._take(wait=True)

    # ---- the worker

    def _note(self, parts: int) -> None:
        """Remember what is missing in the block that was planned last, and was not asked for yet."""
        at = int(self._engine.ctx.parts)
        for i in range(parts):
            span = int(Part.at(at + i * Part.size).span)
            if span:
                key = b"".join(ctypes.string_at(at + (i + k) * Part.size, PART_KEY) for k in range(span))
                if key not in self._asked:
                    self._asked.add(key)
                    self._wanted[key] = None

    def _ask(self) -> None:
        """Send what is wanted, all that there is at once."""
        if not self._wanted or len(self._unanswered) >= UNANSWERED or self._given_up:
            return
        from .build import Interrupted, WorkerEnded, take_worker

        keys = tuple(self._wanted)
        store = self._engine.store
        try:
            if self._worker is None:
                self._worker = take_worker(store)
            self._worker.send((SUFFIX, self._guest, keys, self._worker.lend(store.kept)))
        except WorkerEnded as error:
            self._ended(str(error))
        except Interrupted:
            self._again()
        else:
            self._unanswered.append(keys)
            self._wanted.clear()

    def _take(self, *, wait: bool) -> None:
        """Take the worker's answers; load the file again if there is something new, and it is time."""
        while self._worker is not None and self._unanswered and self._answer(wait=wait):
            pass
        if self._fresh and (wait or time.monotonic() >= self._next):
            self._fresh = False
            self._load()
            self._next = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LAST_PAUSE)

    def _answer(self, *, wait: bool) -> bool:
        """Take one answer; False if there is none."""
        from .build import Answer, Interrupted, WorkerEnded

        assert self._worker is not None
        try:
            message = self._worker.receive(wait=wait)
        except WorkerEnded as error:
            self._ended(str(error))
            return False
        except Interrupted:
            self._again()
            return False
        except (InternalError, UserError) as error:
            self._give_up(str(error).strip().rpartition("\n")[2])
            return False
        if message is None:
            return False
        kind, *rest = message
        if kind == "done":
            answer = Answer(*rest)
            self._worker.learn(answer)
            self._engine.store.accept(answer)
            del self._unanswered[0]
            self._fresh = True
            if not self._unanswered:
                self._let_go()
        else:  # it had waited long enough, and went just as it was asked again
            self._again()
        return True

    def _again(self) -> None:
        """There will be no answer: what was asked for is wanted still."""
        for keys in self._unanswered:
            self._wanted.update(dict.fromkeys(keys))
        self._let_go(broken=True)

    def _ended(self, why: str) -> None:
        self._deaths += 1
        for keys in self._unanswered:
            self._wanted.update(dict.fromkeys(keys))
        self._let_go(ended=True)
        if self._deaths >= DEATHS:
            self._give_up(why)

    def _let_go(self, *, ended: bool = False, broken: bool = False) -> None:
        self._unanswered.clear()
        if self._worker is not None:
            from .build import give_back

            give_back(self._worker, ended=ended, broken=broken)
            self._worker = None

    def _give_up(self, why: str) -> None:
        """No more of them in this process; what is loaded stays."""
        engine = self._engine
        self._given_up = True
        self._let_go(broken=bool(self._unanswered))
        engine.ctx.mode = int(engine.ctx.mode) & ~MODE_HOT
        engine.flush()
        say_once(SUFFIX, f"hot code goes on without more superinstructions: {why}", quiet=engine.store.quiet)

    # ---- the file

    def _load(self) -> bool:
        """Load the file, if there is one; all blocks are forgotten then: steps have addresses in the one before."""
        engine = self._engine
        if not engine.store.has(self._name):
            return False
        place = int(engine.ctx.pack) + PACK_RESERVE - SNIPPET_ROOM - SUPER_ROOM
        engine.ctx.supers = 0
        engine.flush()
        try:
            loaded = Loaded(engine.store, self._name, place, SUPER_ROOM, code=True)
            trouble = trouble_with(engine.store, loaded, SuperHead, SUPER_MAGIC)
        except DamagedFile as error:
            trouble = str(error)
        except OSError as error:  # it was there a moment ago
            trouble = error.strerror or "it cannot be read"
        if trouble:
            text = f"{engine.store.path(self._name)}: {trouble}; it is begun anew when something is hot"
            say_once(f"damaged {self._name}", text, quiet=engine.store.quiet)
            engine.store.kept.pop(self._name, None)
            return False
        engine.ctx.supers = place
        return True
