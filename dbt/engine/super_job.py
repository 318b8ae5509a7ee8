"""The worker's part of superinstructions: compiles those that are wanted into the guest's file, see super_pack.py."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Final

from .children import in_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbt.backends.llvm.extract import Stencil

    from .worker import Server

SUFFIX: Final = "superinstructions"


def build_superinstructions(server: Server, guest_name: str, keys: Sequence[bytes]) -> None:
    """Compile superinstructions into the guest's file, which keeps those it has; those that cannot be are noted."""
    from dbt.backends.llvm.pack import PackError
    from dbt.backends.llvm.super_pack import SuperPack
    from dbt.frontends.guest import load_guest

    guest = load_guest(guest_name)
    space = server.space
    name = f"{guest_name}.{SUFFIX}"
    pack = SuperPack(space.stamp)
    data = space.read(name)
    if data is not None:
        try:
            pack = SuperPack.parse(data, name, space.stamp)
        except PackError as error:
            space.trouble[f"damaged {name}"] = f"{error}; building it again"
    todo = sorted(set(keys) - pack.keys())
    if not todo:
        return
    import_module("dbt.backends.llvm.superinstructions")  # once, not in every child

    def work(batch: list[bytes]) -> dict[bytes, Stencil | None]:
        from dbt.backends.llvm.superinstructions import compile_superinstructions

        return compile_superinstructions(guest, batch)

    limit = len(os.sched_getaffinity(0))
    size = -(-len(todo) // limit)
    found: dict[bytes, Stencil | None] = {}
    for batch, outcome in in_batches(
        [todo[i : i + size] for i in range(0, len(todo), size)], work, limit, server.quietly_alive
    ):
        if not outcome.trouble:
            found.update(outcome.value)
        elif outcome.lasting:
            found[batch[0]] = None
    if found:
        pack.add(found)
        space.write(name, pack.to_bytes(), durable=False)
