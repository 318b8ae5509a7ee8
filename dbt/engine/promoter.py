"""The supervisor's side of regions: has them formed from guest memory, and compiled by the worker.

A request names the hot block. The worker asks for the guest pages that it wants to see, and sends the region. This may
be awaited, or looked at now and then: the guest may go on meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dbt.errors import InternalError

from .build import Interrupted, WorkerEnded, give_back, take_worker
from .cache import say_once
from .children import last_words
from .former import EVERYTHING
from .layout import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .build import Worker
    from .cache import Store
    from .former import Profile

    Ranges = list[tuple[int, bytes]]  # guest addresses, and the bytes there that a region was made of

DEATHS: Final = 6  # after so many workers that ended, nothing is promoted any more


class RegionCode(NamedTuple):
    """Code and constants in one piece; displacements have 32 bits and count from behind themselves.

    `links`: (offset of a displacement, guest address that it leads to); `leaves`: offsets of those that lead to the
    leave stencil; `landings`: (offset of an access, offset of where its fault goes on, guest address), sorted.
    """

    code: bytes
    links: list[tuple[int, int]]
    leaves: list[int]
    landings: list[tuple[int, int, int]]


class NoRegion(Exception):
    """There is none for this block; the text says why."""


class Promotion:
    """A region that is being made, or several. `ranges`: the guest bytes that it is made of, once there is a result."""

    def __init__(self, start: Callable[[], Worker], page: Callable[[int], bytes]) -> None:
        self._start = start  # gives a worker that has been asked
        self._page = page
        self._worker: Worker | None = start()
        self._code: Any = None
        self.ranges: Any = []

    def ready(self) -> bool:
        """Whether `result` would not wait. Raises NoRegion, WorkerEnded, Interrupted.

        The worker goes on only when it has been given the pages that it wants to see, so this wants to be called again.
        """
        return self._go_on(wait=False) is not None

    def result(self) -> Any:
        """Wait for the code: a RegionCode, or several. Raises NoRegion, WorkerEnded, Interrupted."""
        return self._go_on(wait=True)

    def abandon(self) -> None:
        """Nobody wants it any more."""
        self._end(Interrupted())

    def _go_on(self, *, wait: bool) -> Any:
        while self._code is None:
            assert self._worker is not None
            try:
                message = _receive(self._worker, wait=wait)
                if message is None:
                    return None
                kind, value = message
                if kind == "page":
                    self._worker.send(self._page(value * PAGE_SIZE))
                elif kind == "formed":
                    self.ranges = value
                elif kind in {"region", "regions"}:
                    self._code = value
                elif kind != "bye":
                    raise NoRegion(value)  # noqa: TRY301 - the worker is given back for this as for all else
            except BaseException as error:
                self._end(error)
                raise
            if kind == "bye":  # it had waited long enough, and went just as it was asked
                self._end(Interrupted())
                self._worker = self._start()
        self._end()
        return self._code

    def _end(self, error: BaseException | None = None) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            ended = isinstance(error, WorkerEnded)
            give_back(worker, ended=ended, broken=not ended and error is not None and not isinstance(error, NoRegion))


def _receive(worker: Worker, *, wait: bool) -> tuple[str, Any] | None:
    """A message, if there is one. Raises NoRegion for a bug of ours in the worker: the block does without."""
    try:
        message = worker.receive(wait=wait)
    except InternalError as error:
        raise NoRegion(last_words(str(error))) from error
    return None if message is None else (message[0], message[1] if len(message) > 1 else None)


class Promoter:
    """Has regions compiled for one CPU."""

    def __init__(self, store: Store, guest: str) -> None:
        self._store = store
        self._guest = guest
        self._deaths = 0

    def region(
        self, entry: int, key: tuple[Any, ...], page: Callable[[int], bytes], profile: Profile = EVERYTHING
    ) -> tuple[RegionCode, Ranges] | None:
        """(code, guest ranges) for the block at `entry`, waited for; None if there is none, which is said once.

        Arguments as for `begin`. Raises Interrupted. A worker that ends on it is started again, once.
        """
        ended = ""
        for careful in (False, True):
            if self._deaths >= DEATHS:
                break
            try:
                promotion = self.begin(entry, key, page, profile, careful=careful)
                code = promotion.result()
            except NoRegion as error:
                self.refused(entry, error)
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
        self,
        entry: int,
        key: tuple[Any, ...],
        page: Callable[[int], bytes],
        profile: Profile = EVERYTHING,
        *,
        careful: bool = False,
    ) -> Promotion:
        """Have the region of the block at `entry` made.

        `key`: what it depends on beside the guest's bytes, see region_job.py; `page`: gives the bytes of a guest page;
        `profile`: what has run so far; `careful`: a worker has ended on it. Raises
        WorkerEnded, Interrupted.
        """
        return Promotion(lambda: self._ask("region", entry, key, profile, careful), page)

    def several(
        self, blocks: Sequence[tuple[int, Profile]], key: tuple[Any, ...], page: Callable[[int], bytes]
    ) -> list[tuple[int, RegionCode, Ranges]]:
        """(address, code, ranges) of those of `blocks` that a region begins with, waited for.

        Nothing is said where that fails: whoever needs one of them will ask for it alone. Raises Interrupted.
        """
        try:
            promotion = Promotion(lambda: self._ask("regions", blocks, key), page)
            codes = promotion.result()
        except (NoRegion, WorkerEnded):
            return []
        return [(entry, code, ranges) for (entry, ranges), code in zip(promotion.ranges, codes, strict=True)]

    def _ask(self, kind: str, *arguments: Any) -> Worker:
        worker = take_worker(self._store)
        try:
            worker.send((kind, self._guest, *arguments))
        except BaseException as error:
            ended = isinstance(error, WorkerEnded)
            give_back(worker, ended=ended, broken=not ended)
            raise
        return worker

    def refused(self, entry: int, error: NoRegion) -> None:
        """Say once why a block stays as it is."""
        self._say("region", f"the block at {entry:#x} stays in the baseline engine: {error}")

    def _say(self, kind: str, text: str) -> None:
        say_once(kind, text, quiet=self._store.quiet)
