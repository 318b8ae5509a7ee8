"""The command, with a worker process that something happens to.

`python -m tests.robustness.sabotage WHAT NOTES COUNT run …` runs `dragoman run …`; each worker that it starts imports
this module first and does WHAT to itself, COUNT times in all. NOTES is a folder in which the workers count, and leave
their process numbers. Where LLVM is to abort, it gets text on which it really does.
"""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PRELUDE: Final = "import sys; sys.path.insert(0, {root!r})\nfrom tests.robustness import sabotage\nsabotage.{call}\n"
ROOT: Final = str(Path(__file__).parents[2])
# Twelve arguments leave no register for the target of the jump: exit(1). An instruction that x86 has not: abort().
_TWELVE: Final = ", ".join(f"i64 %a{i}" for i in range(12))
FATAL: Final = {
    "exit": f"""
define preserve_nonecc void @spoilt({_TWELVE}) {{
  %f = inttoptr i64 %a0 to ptr
  musttail call preserve_nonecc void %f({_TWELVE})
  ret void
}}
""",
    "abort": """
declare i32 @llvm.aarch64.crc32b(i32, i32)
define i32 @spoilt(i32 %a) {
  %r = call i32 @llvm.aarch64.crc32b(i32 %a, i32 %a)
  ret i32 %r
}
""",
}


class Notes:
    """What the workers of one run have in common."""

    def __init__(self, folder: str, count: int) -> None:
        self.folder = Path(folder)
        self.count = count

    def due(self) -> bool:
        """Whether it is to be done again; that is counted."""
        done = len(list(self.folder.glob("done-*")))
        if done >= self.count:
            return False
        (self.folder / f"done-{done}").write_text(str(os.getpid()))
        return True

    def end(self, number: int = signal.SIGKILL) -> None:
        """Send this process a signal, if it is time."""
        if self.due():
            os.kill(os.getpid(), number)
            time.sleep(0.01)


def spoil(what: str, folder: str, count: int) -> None:
    """In a worker, before anything else: see to it that `what` happens."""
    notes = Notes(folder, count)
    name, _, argument = what.partition("=")
    SPOILERS[name](notes, argument)


def _wrap(owner: Any, name: str, before: Callable[..., Any] | None, after: Callable[..., Any] | None = None) -> None:
    """Have something done before and after each call of a function; it sees the arguments."""
    inner = getattr(owner, name)

    def outer(*arguments: Any, **keywords: Any) -> Any:
        if before is not None:
            before(*arguments)
        value = inner(*arguments, **keywords)
        if after is not None:
            after(*arguments)
        return value

    setattr(owner, name, outer)


def _at_start(notes: Notes, _: str) -> None:
    from dbt.engine.worker import Server

    _wrap(Server, "__init__", lambda *_: notes.end())


def _at_request(notes: Notes, argument: str) -> None:
    """Before it does what it is asked for."""
    from dbt.engine.worker import Server

    number = signal.SIGSTOP if argument == "stop" else signal.SIGKILL
    _wrap(Server, "_answer", lambda *_: notes.end(number))


def _in_answer(notes: Notes, kind: str) -> None:
    """In the middle of the first bytes, or the last, of a message of this kind."""
    from dbt.engine import transport

    kind, _, part = kind.partition(":")

    def half(self: Any, message: Any) -> None:
        if message[0] != kind or not notes.due():
            return
        data = pickle.dumps(message)
        data = transport._HEAD.pack(transport._MARK, len(data)) + data
        self._socket.sendall(data[:5] if part == "head" else data[:-3])
        os.kill(os.getpid(), signal.SIGKILL)

    _wrap(transport.Channel, "send", half)


def _after_answer(notes: Notes, kind: str) -> None:
    from dbt.engine.transport import Channel

    def note(_: Channel, message: Any) -> None:
        due[:] = [message[0] == kind and notes.due()]  # before anybody may have the answer

    def kill(*_: object) -> None:
        if due[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    due = [False]
    _wrap(Channel, "send", note, kill)


def _garbage(notes: Notes, _: str) -> None:
    """Bytes that are no message, before an answer."""
    from dbt.engine.worker import Server

    def harm(self: Server, *_: object) -> None:
        if notes.due():
            self.channel._socket.sendall(b"LLVM ERROR: not this way\n")

    _wrap(Server, "_answer", harm)


def _noise(_: Notes, __: str) -> None:
    """Something on standard error before each message, as LLVM's warnings are."""
    from dbt.engine.transport import Channel

    _wrap(Channel, "send", lambda *_: os.write(2, b"warning: nothing that matters\n"))


def _fatal_form(_: Notes, argument: str) -> None:
    """LLVM does not survive one form."""
    module = import_module("dbt.backends.llvm.stencils")
    how, form = argument.split(":")
    met = []
    template_of = module.template_of
    compile_text: Callable[..., bytes] = module.compile_text

    def noticing(guest: Any, request: Any) -> Any:
        if guest.tables.forms[request.form].name == form:
            met.append(request)
        return template_of(guest, request)

    def spoiling(text: str, **keywords: Any) -> bytes:
        return compile_text(text + FATAL[how] if met else text, **keywords)

    vars(module)["template_of"] = noticing
    vars(module)["compile_text"] = spoiling


def _fatal_region(notes: Notes, how: str) -> None:
    """LLVM does not survive a region."""
    module = import_module("dbt.backends.llvm.region_code")
    compile_text: Callable[[str], bytes] = module.compile_text

    def spoiling(text: str, **keywords: Any) -> bytes:
        return compile_text(text + FATAL[how] if notes.due() else text, **keywords)

    vars(module)["compile_text"] = spoiling


def _full_disk(_: Notes, __: str) -> None:
    """The kernel's own ENOSPC, from the device that is always full."""

    def onto_full_disk(_path: str, data: bytes, *, durable: bool = True) -> None:
        with open("/dev/full", "wb") as file:
            file.write(data)
            if durable:
                file.flush()

    vars(import_module("dbt.engine.workspace"))["write_aside"] = onto_full_disk


def _size_limit(_: Notes, __: str) -> None:
    """Files may not be larger than one page (EFBIG)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def _cache(notes: Notes, argument: str) -> None:
    """Something happens to the cache's folder, or what is in it, at a request or behind an answer."""
    from dbt.engine.worker import Server

    how, _, when = argument.partition(":")

    def harm(server: Server, *_: object) -> None:
        if notes.due():
            HARM[how](Path(server.space._folder))

    _wrap(Server, "_answer", *((None, harm) if when == "after" else (harm,)))


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)


def _remove_all(folder: Path) -> None:
    shutil.rmtree(folder.parent)


def _replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"")


def _replace_by_link(folder: Path) -> None:
    moved = folder.with_name("moved")
    folder.rename(moved)
    folder.symlink_to(moved)


def _open_to_all(folder: Path) -> None:
    folder.chmod(0o777)


def _make_read_only(folder: Path) -> None:
    folder.chmod(0o500)


def _files(folder: Path) -> Iterable[Path]:
    return [path for path in folder.iterdir() if path.name != "lock"]


def _truncate(folder: Path) -> None:
    for path in _files(folder):
        os.truncate(path, 0)


def _overwrite(folder: Path) -> None:
    """Where they are, without a new file."""
    for path in _files(folder):
        with path.open("r+b") as file:
            file.write(b"\xcc" * path.stat().st_size)


HARM: Final[dict[str, Callable[[Path], None]]] = {
    "remove": _remove, "remove-all": _remove_all, "file": _replace_by_file, "link": _replace_by_link,
    "open": _open_to_all, "read-only": _make_read_only, "truncate": _truncate, "overwrite": _overwrite,
}  # fmt: skip
SPOILERS: Final[dict[str, Callable[[Notes, str], None]]] = {
    "start": _at_start, "request": _at_request, "answer": _in_answer, "behind": _after_answer, "garbage": _garbage,
    "noise": _noise, "form": _fatal_form, "region": _fatal_region, "full": _full_disk, "limit": _size_limit,
    "cache": _cache, "nothing": lambda *_: None,
}  # fmt: skip


def prepare(what: str, folder: str, count: int) -> None:
    """In the process of the guest: have its workers do that."""
    from dbt.engine import spawn

    spawn.BOOTSTRAP = PRELUDE.format(root=ROOT, call=f"spoil({what!r}, {folder!r}, {count})") + spawn.BOOTSTRAP


def main() -> None:
    """Run the command."""
    from dbt import launch

    _, what, folder, count, *arguments = sys.argv
    prepare(what, folder, int(count))
    origin = launch.Origin([], launch.read_environ(), 0)
    launch.leave(launch.dispatch(arguments, origin))


if __name__ == "__main__":
    main()
