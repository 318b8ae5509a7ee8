"""ATA and ATAPI drives behind any host: what IDE and AHCI controllers share.

codes.py: bits and opcodes; drive.py: task file, phases, requests in flight; disk.py: a hard disk, commands.py: those of
its commands that move no sectors, with identify.py, smart.py and logs.py; atapi.py: the PACKET protocol of a CD-ROM
drive, mmc.py: its commands, sense.py: its errors, raw.py: raw sectors; transfer.py and scatter.py: data between the
medium and guest memory; link.py: what a controller is to a drive;
ahci.py: a port of AHCI, with phy.py, fis.py and hba.py.

    disk = AtaDisk("disk", machine, Disk(open_image("a.qcow2", "qcow2", writable=True)))
    IdeChannel("ide0", machine, irq=line, drives=(disk, None))
"""

from dbt.machine.ata.atapi import AtapiDrive
from dbt.machine.ata.disk import AtaDisk
from dbt.machine.ata.drive import Drive
from dbt.machine.ata.link import Link

__all__ = ["AtaDisk", "AtapiDrive", "Drive", "Link"]
