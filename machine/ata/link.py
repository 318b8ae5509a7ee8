"""What a drive is connected to: a channel of parallel ATA, or a port of AHCI."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbt.machine.ata.drive import Drive
    from dbt.machine.ata.scatter import Source
    from dbt.machine.ata.transfer import Failure


class Link:
    """The base: nothing is connected."""

    task_file = True  # the host moves PIO data through the data register; else everything goes to memory
    dma = False  # whether data can go to memory by itself
    queue = 0  # commands that may be outstanding (NCQ); 0: none

    def interrupt(self, drive: Drive) -> None:
        """The drive's INTRQ has changed."""

    def memory(self, drive: Drive) -> Source:
        """Where the data of the drive's current command goes, or comes from."""
        raise NotImplementedError

    def packet(self, drive: Drive) -> bytes:
        """The packet of a PACKET command, of links that have it beside the command."""
        raise NotImplementedError

    def ended(self, drive: Drive, *, data_in: bool) -> None:
        """A command has ended: the task file says how. `data_in`: it was PIO to the host."""

    def failed(self, drive: Drive, failure: Failure) -> bool:
        """The current command's data could not reach memory. True: the drive does not say so, software will notice."""
        del drive, failure
        return False

    def ready(self, drive: Drive) -> None:
        """A reset is over: the signature is in the task file."""

    def settled(self, drive: Drive) -> None:
        """What was given up has landed."""

    def second(self, drive: Drive) -> bool:
        """Whether the drive is device 1."""
        del drive
        return False

    def other(self, drive: Drive) -> Drive | None:
        """The second drive of a channel, from the first's view and the other way round."""
        del drive
        return None
