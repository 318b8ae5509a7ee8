"""A disk: the queue on top of a graph, for devices, servers and commands.

    disk = Disk(open_image("a.qcow2", "qcow2", writable=True))
    if disk.submit(request):      # done already: cached data, or an error that was known at once
        …                         # the completion has NOT been called
                                  # else it will be, from a worker's thread
    disk.read(offset, length)     # the same in one line, waiting
    with disk.drained(): …        # nothing is in flight, and what is submitted meanwhile waits

`submit` never waits for the host, so a device may call it under its lock; and it never calls the completion itself, so
the completion may take that lock. Requests in flight run in any order; a flush covers what had completed before it was
submitted. A write, discard or resize of what another in flight reads or writes gives either's result, as on hardware.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from dbt.machine.block.buffers import aligned
from dbt.machine.block.errors import BlockError, HostError, ImageUnsupported, RequestRefused
from dbt.machine.block.request import (
    DISCARD,
    FLUSH,
    FUA,
    OPERATIONS,
    READ,
    RESIZE,
    STATUS,
    WRITE,
    WRITE_ZEROES,
    Request,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dbt.machine.block.node import Extent, Node

WORKERS = 8
AT_ONCE = 1 << 20  # bytes of a read that the submitter's thread may copy from a cache
MAX_LENGTH = 1 << 31  # of one request's data; the kernel moves no more in one call either


class Disk:
    """The queue over `node`, with at most `workers` threads, which are started when they are first needed."""

    def __init__(self, node: Node, *, workers: int = WORKERS) -> None:
        self.node = node
        self.workers = workers
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._in_flight = 0
        self._draining = 0
        self._held_back: list[Request] = []
        self._try_read = node.try_read
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self.node.size

    def submit(self, request: Request) -> bool:
        """Start `request`. True: it is done (`error` says how), and its completion is not called."""
        offset, length = request.offset, request.length
        if request.operation == READ:
            if 0 <= offset <= self.node.size - length and length <= MAX_LENGTH and not self._draining:
                try:
                    if length <= AT_ONCE and self._try_read(offset, length, request.vectors):
                        request.done = True
                        return True
                except BlockError as error:
                    return self._failed(request, error)
            elif not self._draining:
                return self._failed(request, self._refusal(request))
        elif (refusal := self._refusal(request)) is not None:
            return self._failed(request, refusal)
        with self._lock:
            if self._draining:
                self._held_back.append(request)
                return False
            self._in_flight += 1
            self._hand_over(request)
        return False

    def _refusal(self, request: Request) -> BlockError | None:
        """Why a request cannot be; None if it can."""
        operation, offset, length = request.operation, request.offset, request.length
        node = self.node
        if operation == FLUSH:
            return None
        if operation not in {READ, STATUS} and not node.writable:
            return RequestRefused(node.name, f"{OPERATIONS[operation]}: the disk is open for reading only")
        if operation == RESIZE:
            return None if length >= 0 else RequestRefused(node.name, f"resize to {length}")
        if offset < 0 or length < 0 or offset + length > node.size:
            reason = f"{OPERATIONS[operation]} of {length} bytes; the disk ends at {node.size:#x}"
            return RequestRefused(node.name, reason, offset=offset)
        if operation in {READ, WRITE} and length > MAX_LENGTH:
            return RequestRefused(node.name, f"{OPERATIONS[operation]} of {length} bytes: at most {MAX_LENGTH}")
        return None

    @staticmethod
    def _failed(request: Request, error: BlockError | None) -> bool:
        request.error = error
        request.done = True
        return True

    def _hand_over(self, request: Request) -> None:
        """Give a request to a worker, a new one if none is idle and there may be more. The lock is held."""
        self._queue.put(request)
        if self._idle > 0:
            self._idle -= 1
        elif len(self._threads) < self.workers:
            thread = threading.Thread(target=self._work, name=f"block-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        get = self._queue.get
        while (request := get()) is not None:
            self._serve(request, worker=True)

    def _serve(self, request: Request | None, *, worker: bool) -> None:
        if request is None:
            return
        completion = request.completion
        try:
            try:
                self.perform(request)
            finally:
                if completion is not None:
                    completion(request)
        except Exception:  # noqa: BLE001 - ours: it is told as one that ends a thread, and the thread has more to do
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
        finally:
            self._finish(worker=worker)

    def _finish(self, *, worker: bool) -> None:
        with self._lock:
            self._in_flight -= 1
            if worker and self._queue.empty():
                self._idle += 1
            if self._draining and not self._in_flight:
                self._settled.notify_all()

    def perform(self, request: Request) -> None:
        """Do what `request` says, in this thread; its `error` or `result` is set."""
        node, operation = self.node, request.operation
        try:
            refusal = self._refusal(request)
            if refusal is not None:
                raise refusal  # noqa: TRY301 - as what nodes raise
            if operation == READ:
                node.read(request.offset, request.length, request.vectors)
            elif operation == WRITE:
                node.write(request.offset, request.length, request.vectors, request.flags)
            elif operation == FLUSH:
                node.flush()
            elif operation == WRITE_ZEROES:
                node.write_zeroes(request.offset, request.length, request.flags)
            elif operation == DISCARD:
                node.discard(request.offset, request.length)
            elif operation == STATUS:
                request.result = node.status(request.offset, request.length)
            else:
                node.resize(request.length)
            if request.flags & FUA and not node.handles_fua:
                node.flush()
        except BlockError as error:
            request.error = error
        except NotImplementedError:
            request.error = ImageUnsupported(node.name, f"{node.driver} cannot {OPERATIONS[operation]}")
        except OSError as error:
            request.error = HostError(node.name, error, doing=OPERATIONS[operation], offset=request.offset)
        except Exception as error:  # whoever waits for the request is not to wait for ever
            reason = OSError(f"{type(error).__name__}: {error}")
            request.error = HostError(node.name, reason, doing=OPERATIONS[operation], offset=request.offset)
            raise
        finally:
            request.done = True

    # Waiting forms, in the caller's thread.

    def run(self, request: Request) -> Any:  # noqa: ANN401 - whatever the operation's result is
        """Perform `request` here and now; its result, or its error raised."""
        with self._lock:
            while self._draining:
                self._settled.wait()
            self._in_flight += 1
        try:
            self.perform(request)
        finally:
            self._finish(worker=False)
        if request.error is not None:
            raise request.error
        return request.result

    def read(self, offset: int, length: int) -> memoryview:
        """`length` bytes from `offset`."""
        data = aligned(length) if self.node.alignment > 1 else memoryview(bytearray(length))
        self.run(Request(READ, offset, [data]))
        return data

    def write(self, offset: int, data: bytes | bytearray | memoryview, flags: int = 0) -> None:
        """Store `data` at `offset`."""
        self.run(Request(WRITE, offset, [memoryview(data).cast("B")], flags=flags))

    def write_zeroes(self, offset: int, length: int, flags: int = 0) -> None:
        """Make the range read as zeroes."""
        self.run(Request(WRITE_ZEROES, offset, length=length, flags=flags))

    def discard(self, offset: int, length: int) -> None:
        """Say that the range's content is not needed."""
        self.run(Request(DISCARD, offset, length=length))

    def flush(self) -> None:
        """Put everything that completed on stable storage."""
        self.run(Request(FLUSH))

    def status(self, offset: int, length: int) -> Extent:
        """What is at `offset`; see Extent."""
        found: Extent = self.run(Request(STATUS, offset, length=length))
        return found

    def resize(self, size: int) -> None:
        """Change the size, while nothing else is in flight."""
        with self.drained():
            self.perform_or_raise(Request(RESIZE, length=size))

    def perform_or_raise(self, request: Request) -> None:
        """`perform` for use inside `drained`."""
        self.perform(request)
        if request.error is not None:
            raise request.error

    def submit_all(self, requests: Sequence[Request]) -> list[Request]:
        """Submit each; those that are done already."""
        submit = self.submit
        return [request for request in requests if submit(request)]

    # Drain.

    @contextmanager
    def drained(self) -> Iterator[None]:
        """Wait until nothing is in flight; what is submitted meanwhile starts when this ends. Not for workers."""
        with self._lock:
            self._draining += 1
            while self._in_flight:
                self._settled.wait()
        try:
            yield
        finally:
            with self._lock:
                self._draining -= 1
                waiting: list[Request] = []
                if not self._draining:
                    waiting, self._held_back = self._held_back, []
                    self._in_flight += len(waiting)
                    self._settled.notify_all()
                for request in waiting:
                    self._hand_over(request)

    def drain(self) -> None:
        """Wait until nothing is in flight."""
        with self.drained():
            pass

    def close(self) -> None:
        """Drain, stop the workers, close the nodes (which writes what they hold back). Again does nothing."""
        if self._closed:
            return
        self._closed = True
        while not self._queue.empty():  # a signal may have kept the only worker from starting
            with suppress(Empty):
                self._serve(self._queue.get_nowait(), worker=False)
        self.drain()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            with suppress(RuntimeError):  # not started, for the same reason: if it does start, it ends at once
                thread.join()
        self._threads.clear()
        self.node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def waiter() -> tuple[Callable[[Request], None], threading.Event]:
    """A completion that sets an event, and the event."""
    event = threading.Event()
    return lambda _: event.set(), event
