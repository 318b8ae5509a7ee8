"""The worker process: compiles what the cache lacks, and regions. Started by spawn.py, with a channel as descriptor 3.

It is told first which cache and build it is for: `("hello", root, build)`. Then it serves requests, one at a time:

- `("jobs", jobs, files)` for files of the cache; `files` are those that the supervisor has in memory. Jobs:
  `("image",)`, `("machine",)`, `("modules",)`, `("tables", guest)`, `("stencils", guest, indices)` (as in
  EXIT_STENCIL), `("handlers", guest, indices)`, `("snippets", kind, templates)`, `("again", name)`: a file that is of
  no use, `("give", name)`: one that only the worker can read. The answer is `("done", *build.Answer)`.
- `("region", …)` and `("regions", …)`, see region_job.py.
- `("superinstructions", guest, keys, files)`, see super_job.py. These are not waited for, so there may be several, each
  with its answer, `("done", *build.Answer)`; and who has asked may be gone, while they are of use for the next one.

Before an answer come `("progress", done, total, text)` and `("alive",)`. Instead of it may come `("failed", text)`, a
bug of ours, or `("refused", what, hint)`, which the user can mend. When nobody has asked for something for a while,
or after very many regions, the worker says `("bye",)` and ends.
"""

from __future__ import annotations

import gc
import os
import resource
import socket
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from dbt.errors import InternalError, UserError

from .cache import PACKS, is_plain_install
from .children import Child, Outcome, in_batches
from .failures import note_failures, read_failures
from .transport import Channel, Ended
from .workspace import Workspace

if TYPE_CHECKING:
    from dbt.backends.llvm.extract import Stencil
    from dbt.native import Native

    from .cache import Job

BATCH: Final = 64  # stencils of a child process at most
PATIENCE: Final = 5.0  # seconds to wait for another request
REGION_PATIENCE: Final = 60.0  # the same after a region: hot code is met again and again, and starting costs a second
MOST_REGIONS: Final = 2000  # requests for them until the worker ends: llvmlite frees no pipeline of passes, some 50 KB
SPECIALS: Final = [-1]  # the batch of the special stencils
RUNTIME: Final = "runtime.image"
SUPERINSTRUCTIONS: Final = "superinstructions"
ROUNDS: Final = 4  # of requests that come while others are served, until these are answered


def main() -> None:
    """Serve requests until nobody asks any more."""
    gc.disable()  # forms and templates stay, and collecting takes a third of the time that making them does
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    try:
        Server(Channel(socket.socket(fileno=3))).serve()
    except Ended:
        return


class Server:
    """Answers requests."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        _, root, build = channel.receive()
        self.space = Workspace(root, build)
        self._patience = PATIENCE
        self._next: list[Any] = []  # a request that has been received already
        self._regions = 0  # requests for them

    def serve(self) -> None:
        """The loop."""
        while self._next or (self._regions < MOST_REGIONS and self.channel.wait(self._patience)):
            kind, *arguments = self._next.pop() if self._next else self.channel.receive()
            self._regions += kind in {"region", "regions"}
            if kind == SUPERINSTRUCTIONS:
                self._superinstructions(*arguments)
                continue
            try:
                answer = self._answer(kind, *arguments)
            except Ended:
                raise
            except UserError as error:
                answer = ("refused", error.what, error.hint)
            except InternalError as error:
                answer = ("failed", str(error))
            except Exception:  # noqa: BLE001 - whatever it is, the supervisor shows it
                answer = ("failed", traceback.format_exc())
            self.channel.send(answer)
        self.channel.send(("bye",))

    def _answer(self, kind: str, *arguments: Any) -> tuple[object, ...]:
        if not self.space.matches:
            raise UserError("Dragoman's own files changed while it ran", "Run the command again.")
        return self._jobs(*arguments) if kind == "jobs" else self._region(kind, *arguments)

    def _jobs(self, jobs: Sequence[Job], files: dict[str, bytes]) -> tuple[object, ...]:
        self.space.begin(files)
        failed: dict[int, str] = {}
        with self.space.locked(self.alive):
            for name, *arguments in jobs:
                if name == "again":
                    self.space.forget(*arguments)
                if name == "give":
                    self.space.give(*arguments)
            with self._beside([name for name, *_ in jobs if name in BESIDE]):
                for name, *arguments in jobs:
                    if name in JOBS:
                        failed.update(JOBS[name](self, *arguments) or {})
        return ("done", self.space.changed, failed, self.space.trouble)

    def _superinstructions(self, guest: str, keys: Sequence[bytes], files: dict[str, bytes]) -> None:
        """Compile what is asked for, and in the same requests that come meanwhile, and answer them all."""
        from .super_job import build_superinstructions

        requests: list[tuple[str, Sequence[bytes], dict[str, bytes]]] = [(guest, keys, files)]
        count = 0
        answer: tuple[object, ...] = ()
        for _ in range(ROUNDS):
            requests += self._more(guest)
            if not requests:
                break
            count += len(requests)
            wanted = [key for _, keys, _ in requests for key in keys]
            self.space.begin({name: data for _, _, files in requests for name, data in files.items()})
            requests.clear()
            try:
                if not self.space.matches:
                    raise UserError("Dragoman's own files changed while it ran", "Run the command again.")  # noqa: TRY301
                with self.space.locked(self.quietly_alive):
                    build_superinstructions(self, guest, wanted)
                answer = ("done", self.space.changed, {}, self.space.trouble)
            except UserError as error:
                answer = ("refused", error.what, error.hint)
                break
            except Exception:  # noqa: BLE001 - whatever it is, the supervisor shows it
                answer = ("failed", traceback.format_exc())
                break
        for _ in range(count):
            self.channel.send(answer)

    def _more(self, guest: str) -> list[tuple[str, Sequence[bytes], dict[str, bytes]]]:
        """Requests for superinstructions that have come; another one is left for later."""
        found = []
        with suppress(Ended):  # who has asked is gone: what was asked for is of use all the same
            while not self._next and self.channel.ready():
                kind, *arguments = self.channel.receive()
                if kind == SUPERINSTRUCTIONS and arguments[0] == guest:
                    found.append((arguments[0], arguments[1], arguments[2]))
                else:
                    self._next.append((kind, *arguments))
        return found

    def _region(self, kind: str, *arguments: Any) -> tuple[object, ...]:
        from .region_job import compile_region, compile_several

        self._patience = REGION_PATIENCE
        if not gc.isenabled():
            gc.freeze()  # what there is stays
            gc.enable()  # this may be a long life
        return compile_region(self, *arguments) if kind == "region" else compile_several(self, *arguments)

    @contextmanager
    def _beside(self, names: Sequence[str]) -> Iterator[None]:
        """Do jobs that take a CPU of their own in children, beside what is done here."""
        children = []
        for name in names:
            file, make = BESIDE[name]
            if name == "modules" and not is_plain_install():
                continue
            if name == "modules" or not self.space.has(file):
                children.append((file, Child(lambda make=make: make(self.space.stamp))))  # type: ignore[misc]
        yield
        for file, child in children:
            self.progress(0, 1, f"building {file}")
            self.space.write(file, value_of(child.outcome(self.alive), file))

    def progress(self, done: int, total: int, text: str) -> None:
        """Tell how far it is."""
        self.channel.send(("progress", done, total, text))

    def alive(self) -> None:
        """Tell that it only takes long."""
        self.channel.send(("alive",))

    def quietly_alive(self) -> None:
        """The same for who may be gone."""
        with suppress(Ended):
            self.alive()


def value_of(outcome: Outcome, what: str) -> Any:
    """What a child made. Raises InternalError if it did not."""
    if outcome.trouble:
        raise InternalError(f"{what} cannot be made: {outcome.trouble}")
    return outcome.value


def image_bytes(stamp: str) -> bytes:
    """The native runtime."""
    from dbt.backends.llvm.compile import compile_text
    from dbt.backends.llvm.image import link
    from dbt.backends.llvm.native import module_text

    from . import dispatch, faults, host_x86_64, invalidate, stepping, survey, syscalls, table
    from .helpers import HELPERS

    roots: list[Native] = [
        dispatch.run, dispatch.translate_at, survey.scan_forms, survey.walk_forms, survey.plan_block,
        faults.on_signal, faults.foreign_actions, syscalls.raw_call, syscalls.wait_call, table.flush,
        table.forget_pages, table.touches_code, table.still_valid, table.find_instruction, stepping.run_exactly,
        invalidate.drop_blocks, invalidate.drop_code, *(helper.function for helper in HELPERS.values()),
    ]  # fmt: skip
    return link(stamp, compile_text(module_text(roots, [host_x86_64.SYSTEM_CALL])))


def machine_bytes(stamp: str) -> bytes:
    """Native parts of machines."""
    from dbt.backends.llvm.compile import compile_text
    from dbt.backends.llvm.image import link
    from dbt.backends.llvm.native import module_text
    from dbt.machine.native import apic, builtin, gic, timers, virtqueue

    roots: list[Native] = [*builtin.ROOTS, *virtqueue.ROOTS, *gic.ROOTS, *apic.ROOTS, *timers.ROOTS]
    return link(stamp, compile_text(module_text(roots, [builtin.PYTHON])))


def modules_bytes(stamp: str) -> bytes:
    """The bundle of our Python modules."""
    from dbt.bundle import bundle_bytes

    return bundle_bytes(stamp)


def build_tables(server: Server, guest: str) -> None:
    """The decoder tables of a guest."""
    if server.space.has(f"{guest}.tables"):
        return
    from dbt.frontends.guest import load_guest
    from dbt.frontends.tables_file import tables_bytes

    server.progress(0, 1, f"preparing {guest}")
    server.space.write(f"{guest}.tables", tables_bytes(load_guest(guest), server.space.stamp))


def build_stencils(server: Server, guest: str, numbers: Sequence[int]) -> dict[int, str]:
    """Compile stencils into the guest's pack, which keeps those it has."""
    return build_pack(server, "stencils", guest, numbers)


def build_handlers(server: Server, guest: str, numbers: Sequence[int]) -> dict[int, str]:
    """The same for the interpreter's handlers."""
    return build_pack(server, "handlers", guest, numbers)


def build_pack(server: Server, kind: str, guest_name: str, numbers: Sequence[int]) -> dict[int, str]:
    """Compile stencils or handlers into their file; why by number of those that cannot be."""
    from dbt.backends.llvm.pack import HandlerPack, Pack, PackError
    from dbt.frontends.guest import load_guest

    guest = load_guest(guest_name)
    space = server.space
    name = f"{guest_name}.{PACKS[kind]}"
    make: type[Pack] = HandlerPack if kind == "handlers" else Pack
    identity = (space.stamp, len(guest.tables.forms), len(guest.tables.fusable()))
    pack = make(*identity)
    data = space.read(name)
    if data is not None:
        try:
            pack = make.parse(data, name, *identity)
        except PackError as error:
            space.trouble[f"damaged {name}"] = f"{error}; building it again"
            data = None
    failed = {int(n): why for n, why in read_failures(space, f"{name}.failed").items() if n.isdigit()}
    wanted = set(numbers) - pack.numbers()
    todo = sorted(wanted - set(failed))
    limit = len(os.sched_getaffinity(0))
    size = min(BATCH, -(-len(todo) // limit)) or 1
    batches = [todo[i : i + size] for i in range(0, len(todo), size)]
    if not pack.specials():
        batches.insert(0, SPECIALS)
    if batches:
        import_module("dbt.backends.llvm.stencils")  # once, not in every child
    text = f"compiling instructions of {guest_name}"
    done = 0
    lasting: dict[str, str] = {}

    def work(batch: list[int]) -> dict[int, Stencil]:
        return compile_batch(guest_name, kind, batch)

    for batch, outcome in in_batches(batches, work, limit, server.alive):
        if batch is SPECIALS:
            for number, stencil in value_of(outcome, name).items():
                pack.add_special(number, stencil)
        elif outcome.trouble:
            failed[batch[0]] = outcome.trouble
            if outcome.lasting:
                lasting[str(batch[0])] = outcome.trouble
        else:
            for number, stencil in outcome.value.items():
                pack.add(number, stencil)
            done += len(outcome.value)
        server.progress(done, len(todo), text)
    if batches or data is None:
        space.write(name, pack.to_bytes(), durable=False)
    note_failures(space, f"{name}.failed", lasting)
    return {number: failed[number] for number in wanted & set(failed)}


def compile_batch(guest_name: str, kind: str, batch: list[int]) -> dict[int, Stencil]:
    """In a child: stencils or handlers by number."""
    from dbt.backends.llvm.handlers import compile_handlers, compile_special_handlers
    from dbt.backends.llvm.stencils import compile_requests, compile_specials, request_of
    from dbt.frontends.guest import load_guest

    guest = load_guest(guest_name)
    handlers = kind == "handlers"
    if batch == SPECIALS:
        return compile_special_handlers() if handlers else compile_specials()
    requests = {request_of(guest, number): number for number in batch}
    compiled = compile_handlers(guest, requests) if handlers else compile_requests(guest, requests)
    return {requests[r]: stencil for r, stencil in compiled.items()}


def build_snippets(server: Server, kind: str, text: str) -> None:
    """Compile templates: code that tools insert (engine/inserted.py). `kind` as in build_pack."""
    from dbt.backends.llvm.snippets import compile_snippets

    from .inserted import file_bytes, file_name

    server.progress(0, 1, "compiling instrumentation")
    child = Child(lambda: compile_snippets(text, handlers=kind == "handlers"))
    for template, blob in value_of(child.outcome(server.alive), "inserted code").items():
        server.space.write(file_name(template, kind), file_bytes(blob))


# Jobs that need nothing of the others: the file, and what makes its contents.
BESIDE: dict[str, tuple[str, Callable[[str], bytes]]] = {
    "image": (RUNTIME, image_bytes), "machine": ("machine.image", machine_bytes),
    "modules": ("modules.bundle", modules_bytes),
}  # fmt: skip
JOBS: dict[str, Callable[..., dict[int, str] | None]] = {
    "tables": build_tables, "stencils": build_stencils, "handlers": build_handlers, "snippets": build_snippets,
}  # fmt: skip
