"""The supervisor's side of regions: has them formed from guest memory, and compiled by the worker.

A request names the hot block. The worker asks for the guest pages that it wants to see, and says when it has seen all;
from then on the answer may be awaited, or asked for now and then: the guest may go on meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dbt.errors import InternalError

from .build import Interrupted, WorkerEnded, give_back, take_worker
from .cache import say_once
from .children import last_words
from .layout import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .build import Worker
    from .cache import Store

    Ranges = list[tuple[int, bytes]]  # guest addresses, and the bytes there that a region was made of

DEATHS: Final = 6  # after so many workers that ended, nothing is promoted any more


class RegionCode(NamedTuple):
    """Code and constants in one piece; displacements have 32 bits and count from behind themselves.

    `links`: (offset of a displacement, guest address that it leads to); `leaves`: offsets of those that lead to the
    leave stencil; `landings`: (offset of an access, offset of where its fault goes on, guest PC), sorted.
    """

    code: bytes
    links: list[tuple[int, int]]
    leaves: list[int]
    landings: list[tuple[int, int, int]]


class NoRegion(Exception):
    """There is none for this block; the text says why."""


class Promotion:
    """A region that is being compiled. `ranges`: the guest bytes that it is made of."""

    def __init__(self, worker: Worker, ranges: Ranges) -> None:
        self._worker: Worker | None = worker
        self.ranges = ranges

    def ready(self) -> bool:
        """Whether `result` would not wait. Raises WorkerEnded."""
        assert self._worker is not None
        try:
            return self._worker.ready()
        except BaseException as error:
            self._end(error)
            raise

    def result(self) -> RegionCode:
        """Wait for the code, once. Raises NoRegion, WorkerEnded, Interrupted."""
        assert self._worker is not None
        try:
            code = _code_in(_receive(self._worker))
        except BaseException as error:
            self._end(error)
            raise
        self._end()
        return code

    def abandon(self) -> None:
        """Nobody wants it any more."""
        if self._worker is not None:
            self._end(Interrupted())

    def _end(self, error: BaseException | None = None) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            _let_go(worker, error)


def _let_go(worker: Worker, error: BaseException | None) -> None:
    ended = isinstance(error, WorkerEnded)
    give_back(worker, ended=ended, broken=not ended and error is not None and not isinstance(error, NoRegion))


def _receive(worker: Worker) -> tuple[str, Any]:
    """A message. Raises NoRegion for a bug of ours in the worker: the block does without."""
    try:
        message = worker.receive()
    except InternalError as error:
        raise NoRegion(last_words(str(error))) from error
    return message[0], message[1] if len(message) > 1 else None


def _code_in(message: tuple[str, Any]) -> RegionCode:
    kind, value = message
    if kind != "region":
        raise NoRegion(value)
    code: RegionCode = value
    return code


class Promoter:
    """Has regions compiled for one CPU."""

    def __init__(self, store: Store, guest: str) -> None:
        self._store = store
        self._guest = guest
        self._deaths = 0

    def region(
        self, entry: int, key: tuple[Any, ...], page: Callable[[int], bytes]
    ) -> tuple[RegionCode, Ranges] | None:
        """(code, guest ranges) for the block at `entry`, waited for; None if there is none, which is said once.

        Arguments as for `begin`. Raises Interrupted. A worker that ends on it is started again, once.
        """
        ended = ""
        for careful in (False, True):
            if self._deaths >= DEATHS:
                break
            try:
                promotion = self.begin(entry, key, page, careful=careful)
                code = promotion.result()
            except NoRegion as error:
                self._say("region", f"the block at {entry:#x} stays in the baseline engine: {error}")
                return None
            except WorkerEnded as error:
                self._deaths += 1
                ended = str(error)
                continue
            if ended:
                self._say("worker", f"{ended} on the block at {entry:#x} and was started again")
            return code, promotion.ranges
        self._say("region", f"the block at {entry:#x} stays in the baseline engine: {ended}")
        return None

    def begin(
        self, entry: int, key: tuple[Any, ...], page: Callable[[int], bytes], *, careful: bool = False
    ) -> Promotion:
        """Have the region of the block at `entry` formed, and its compilation begun.

        `key`: what it depends on beside the guest's bytes, see region_job.py; `page`: gives the bytes of a guest page;
        `careful`: a worker has ended on it. Raises NoRegion, WorkerEnded, Interrupted.
        """
        worker = take_worker(self._store)
        try:
            worker.send(("region", self._guest, entry, key, careful))
            while True:
                kind, value = _receive(worker)
                if kind == "page":
                    worker.send(page(value * PAGE_SIZE))
                elif kind == "formed":
                    return Promotion(worker, value)
                else:
                    break
            if kind != "bye":
                raise NoRegion(value)  # noqa: TRY301 - the worker is given back for this as for all else
        except BaseException as error:
            _let_go(worker, error)
            raise
        _let_go(worker, Interrupted())  # it had waited long enough, and went just as it was asked again
        return self.begin(entry, key, page, careful=careful)

    def _say(self, kind: str, text: str) -> None:
        say_once(kind, text, quiet=self._store.quiet)
