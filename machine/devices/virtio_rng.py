"""virtio entropy device (version 1.2, section 5.4): random bytes of the host's.

Of each buffer at most MOST bytes are filled, as section 5.4.6 allows, so no request holds up the machine.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dbt.machine.virtio import VirtioDevice
from dbt.machine.virtio.device import RINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbt.machine.machine import Machine
    from dbt.machine.virtio import VirtQueue

MOST = 4096
BUDGET = 16  # chains in one go: 10 us each at most


class VirtioRng(VirtioDevice):
    """virtio entropy device (virtio 1.2, section 5.4). `source` gives bytes: the host's kernel does."""

    DEVICE_ID = 4

    def __init__(
        self, name: str, machine: Machine, source: Callable[[int], bytes] = os.urandom, *, rings: int = RINGS
    ) -> None:
        super().__init__(name, machine, (8,), rings=rings)
        self.source = source

    def on_notify(self, queue: VirtQueue) -> None:
        """Fill the buffers."""
        for chain in self.chains(queue, BUDGET):
            if chain.readable_length:
                self.guest_error("a buffer is not for the device to write")
            queue.push(chain, chain.write(0, self.source(min(chain.writable_length, MOST))))
        queue.notify()
