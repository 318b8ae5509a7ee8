"""Pages of random instructions on the baseline engine and on the reference: the same stops, the same registers."""

from __future__ import annotations

from . import pages


class Attempts:
    """Both engines."""

    def __init__(self, engine: str) -> None:
        self._engines = (pages.Attempts(engine), pages.Attempts("reference"))

    def attempt(self, seed: int) -> list[str]:
        """Whether they agree on a page that cannot write to itself.

        Instructions behind one that is misaligned are counted although they do not run, so budgets differ then.
        """
        seed = seed // 3 * 4 + seed % 3
        found = [engine.attempt(seed) for engine in self._engines]
        if any("Misaligned" in stops or "Unsupported" in stops for stops in found):
            return ["not compared"]
        assert found[0] == found[1], f"page {seed}: {found}"
        before = [dict(engine.registers) for engine in self._engines]
        assert before[0] == before[1], f"page {seed}"
        return ["same"]
