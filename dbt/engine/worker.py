"""The worker process: compiles what the cache lacks. Started by build.py, with a socket as descriptor 3.

A request is a line of jobs with tabs between them: `image`, `modules`, `tables GUEST`, `stencils GUEST INDEX,INDEX,…`
(indices as in EXIT_STENCIL), `handlers` likewise. Lines in answer: `@progress DONE TOTAL TEXT`; at the end `@done`,
`@failed`, or `@error TEXT` for what the user can mend; anything else is shown if the jobs fail. The worker ends when
nobody has asked for something for a while.

LLVM aborts on internal errors, so stencils are compiled in child processes, a batch each. A batch whose child dies is
halved until the stencil to blame is alone; that one is left out, which the engine reports when it needs it.
"""

from __future__ import annotations

import fcntl
import gc
import os
import pickle
import select
import socket
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from .cache import PACKS, Store, is_plain_install
from .files import write_aside

if TYPE_CHECKING:
    from dbt.backends.llvm.extract import Stencil
    from dbt.frontends.guest import Guest
    from dbt.native import Native

BATCH = 64  # stencils of a child process at most
PATIENCE = 5.0  # seconds to wait for another request
BESIDE = ("image", "modules")  # jobs that need nothing of the others


def say(text: str) -> None:
    """A line to the supervisor."""
    os.write(3, (text + "\n").encode())


def progress(done: int, total: int, text: str) -> None:
    """A progress line."""
    say(f"@progress {done} {total} {text}")


def main(folder: str) -> None:
    """Serve requests for a cache folder until nobody asks any more."""
    gc.disable()  # forms and templates stay, and collecting takes a third of the time that making them does
    connection = socket.socket(fileno=3)
    store: Store | None = None
    rest = b""
    while True:
        if not select.select([connection], [], [], PATIENCE)[0]:
            return
        part = connection.recv(65536)
        if not part:
            return
        *requests, rest = (rest + part).split(b"\n")
        for request in requests:
            try:
                if store is None:
                    store = Store(os.path.dirname(folder), quiet=True)
                if store.folder != folder:
                    say("@error Dragoman's own files changed while it ran. Run the command again.")
                    return
                serve(store, request.decode().split("\t"))
                say("@done")
            except Exception:  # noqa: BLE001 - whatever it is, the supervisor shows it
                say(traceback.format_exc() + "@failed")


def serve(store: Store, jobs: Sequence[str]) -> None:
    """Do jobs, one worker at a time; what takes a CPU of its own runs beside the others."""
    lock = os.open(store.path("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        beside = [start_beside(store, job) for job in jobs if job in BESIDE and len(jobs) > 1]
        for job in jobs:
            if job not in BESIDE or not beside:
                name, *rest = job.split(" ")
                JOBS[name](store, *rest)
        for child in beside:
            if os.waitpid(child, 0)[1]:
                raise RuntimeError("a job failed")
    finally:
        os.close(lock)


def start_beside(store: Store, job: str) -> int:
    """Do a job in a child process; returns the child."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        JOBS[job](store)
        status = 0
    except Exception:  # noqa: BLE001 - told, and seen by the status
        say(traceback.format_exc())
    finally:
        os._exit(status)


def build_image(store: Store) -> None:
    """The native runtime."""
    if os.path.exists(store.path("runtime.image")):
        return
    from dbt.backends.llvm.compile import compile_text
    from dbt.backends.llvm.image import write_image
    from dbt.backends.llvm.native import module_text

    from . import dispatch, faults, host_x86_64, invalidate, stepping, survey, syscalls, table
    from .helpers import HELPERS

    progress(0, 1, "compiling the runtime")
    roots: list[Native] = [
        dispatch.run, dispatch.translate_at, survey.scan_forms, survey.walk_forms, faults.on_signal,
        faults.foreign_actions, syscalls.raw_call, syscalls.wait_call, table.flush, table.forget_pages,
        table.touches_code, table.still_valid, table.find_instruction, stepping.run_exactly, invalidate.drop_blocks,
        invalidate.drop_code, *(helper.function for helper in HELPERS.values()),
    ]  # fmt: skip
    write_image(store.path("runtime.image"), store.stamp, compile_text(module_text(roots, [host_x86_64.SYSTEM_CALL])))
    progress(1, 1, "compiling the runtime")


def build_modules(store: Store) -> None:
    """The bundle of our Python modules, where the installation has one."""
    from dbt.bundle import NAME, bundle_bytes

    if is_plain_install():
        write_aside(store.path(NAME), bundle_bytes(store.stamp))


def build_tables(store: Store, guest: str) -> None:
    """The decoder tables of a guest."""
    if os.path.exists(store.path(f"{guest}.tables")):
        return
    from dbt.frontends.guest import load_guest
    from dbt.frontends.tables_file import write_tables

    progress(0, 1, f"preparing {guest}")
    write_tables(load_guest(guest), store.path(f"{guest}.tables"), store.stamp)
    progress(1, 1, f"preparing {guest}")


def build_stencils(store: Store, guest_name: str, numbers: str = "") -> None:
    """Compile stencils into the guest's pack, which keeps those it has."""
    build_pack(store, "stencils", guest_name, numbers)


def build_handlers(store: Store, guest_name: str, numbers: str = "") -> None:
    """The same for the interpreter's handlers."""
    build_pack(store, "handlers", guest_name, numbers)


def build_pack(store: Store, kind: str, guest_name: str, numbers: str) -> None:
    """Compile stencils or handlers into their file, which keeps those it has."""
    from dbt.backends.llvm.pack import HandlerPack, Pack, PackError, read_pack
    from dbt.frontends.guest import load_guest

    guest = load_guest(guest_name)
    path = store.path(f"{guest_name}.{PACKS[kind]}")
    make: type[Pack] = HandlerPack if kind == "handlers" else Pack
    identity = (store.stamp, len(guest.tables.forms), len(guest.tables.fusable()))
    pack = make(*identity)
    if os.path.exists(path):
        try:
            pack = read_pack(path, *identity, make)
        except PackError as error:
            say(f"{error}; starting again")
    todo = sorted({int(number) for number in numbers.split(",") if number} - pack.numbers())
    limit = len(os.sched_getaffinity(0))
    size = min(BATCH, -(-len(todo) // limit)) or 1
    jobs = [todo[i : i + size] for i in range(0, len(todo), size)]
    if not pack.specials():
        jobs.insert(0, SPECIALS)
    if jobs:
        import_module("dbt.backends.llvm.stencils")  # once, not in every child
    text = f"compiling instructions of {guest_name}"
    done = 0
    if todo:
        progress(done, len(todo), text)
    for batch, result in in_children(guest, kind, jobs, limit):
        for number, stencil in result.items():
            if batch is SPECIALS:
                pack.add_special(number, stencil)
            else:
                pack.add(number, stencil)
                done += 1
        if todo:
            progress(done, len(todo), text)
    if jobs:
        pack.write(path)


SPECIALS: list[int] = [-1]


def in_children(
    guest: Guest, kind: str, jobs: list[list[int]], limit: int
) -> Iterator[tuple[list[int], dict[int, Stencil]]]:
    """Yield (batch, stencils by number) for each batch; a child for each CPU at a time, halving what dies."""
    waiting = list(reversed(jobs))
    running: list[tuple[int, int, list[int]]] = []
    while waiting or running:
        while waiting and len(running) < limit:
            running.append(_start_child(guest, kind, waiting.pop()))
        child, read_end, batch = running.pop(0)
        with os.fdopen(read_end, "rb") as stream:
            data = stream.read()
        _, status = os.waitpid(child, 0)
        if status == 0:
            yield batch, pickle.loads(data)  # noqa: S301 - from our own child
        elif len(batch) > 1:
            middle = len(batch) // 2
            waiting += [batch[:middle], batch[middle:]]
        else:
            say(f"stencil {batch[0]} cannot be compiled (status {status})")


def _start_child(guest: Guest, kind: str, batch: list[int]) -> tuple[int, int, list[int]]:
    """Fork a child that compiles a batch: (process, where it writes, batch)."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        os.close(read_end)
        _compile_batch(guest, kind, batch, write_end)
    os.close(write_end)
    return child, read_end, batch


def _compile_batch(guest: Guest, kind: str, batch: list[int], write_end: int) -> None:
    """In a child: compile and send the result. Never returns."""
    status = 1
    try:
        from dbt.backends.llvm.handlers import compile_handlers, compile_special_handlers
        from dbt.backends.llvm.stencils import compile_requests, compile_specials, request_of

        handlers = kind == "handlers"
        if batch == SPECIALS:
            found = compile_special_handlers() if handlers else compile_specials()
        else:
            requests = {request_of(guest, number): number for number in batch}
            compiled = compile_handlers(guest, requests) if handlers else compile_requests(guest, requests)
            found = {requests[r]: stencil for r, stencil in compiled.items()}
        with os.fdopen(write_end, "wb") as stream:
            stream.write(pickle.dumps(found))
        status = 0
    except Exception:  # noqa: BLE001 - told, then the batch is halved
        say(traceback.format_exc())
    finally:
        os._exit(status)


def build_snippets(store: Store, kind: str, request: str) -> None:
    """Compile the templates in a file: code that tools insert (engine/instrumentation.py). `kind` as in build_pack."""
    from dbt.backends.llvm.snippets import compile_snippets

    from .instrumentation import file_bytes, file_name

    with open(request, encoding="ascii") as file:
        text = file.read()
    progress(0, 1, "compiling instrumentation")
    for template, blob in compile_snippets(text, handlers=kind == "handlers").items():
        write_aside(store.path(file_name(template, kind)), file_bytes(blob))
    progress(1, 1, "compiling instrumentation")


JOBS: dict[str, Callable[..., None]] = {
    "image": build_image, "modules": build_modules, "tables": build_tables, "stencils": build_stencils,
    "handlers": build_handlers, "snippets": build_snippets,
}  # fmt: skip
