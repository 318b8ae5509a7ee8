"""Devices, one a file: a class that declares its registers (machine/registers.py) and what they do.

`DEVICES` names the files, and those elsewhere with their modules; the class in each is found by `load`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from dbt.errors import UsageError
from dbt.wording import instead

if TYPE_CHECKING:
    from dbt.machine.device import Device

DEVICES = {
    "apic": "LocalApic",
    "cfi_flash": "CfiFlash",
    "e1000": "E1000",
    "fw_cfg": "FwCfg",
    "gicv2": "GICv2",
    "gicv2m": "GICv2m",
    "gicv3": "GICv3",
    "gicv3_cpu": "GICv3CpuInterface",
    "gicv3_its": "GICv3Its",
    "gicv3_redistributor": "GICv3Redistributor",
    "gpex": "GpexRoot",
    "hpet": "Hpet",
    "i440fx": "I440fx",
    "i8042": "I8042",
    "i8254": "I8254",
    "i8259": "I8259",
    "ich9_ahci": "Ich9Ahci",
    "ide": "IdeChannel",
    "ioapic": "IoApic",
    "mc146818": "MC146818",
    "ns16550": "NS16550",
    "pci_bridge": "dbt.machine.pci.bridge:PciBridge",
    "piix3": "Piix3",
    "piix3_ide": "Piix3Ide",
    "piix4_ide": "Piix4Ide",
    "piix4_pm": "Piix4Pm",
    "pl011": "PL011",
    "pl031": "PL031",
    "pl061": "PL061",
    "port92": "Port92",
    "psci": "Psci",
    "sifive_test": "SifiveTest",
    "virtio_9p": "Virtio9p",
    "virtio_balloon": "VirtioBalloon",
    "virtio_blk": "VirtioBlk",
    "virtio_mmio": "dbt.machine.virtio.mmio:VirtioMmio",
    "virtio_console": "VirtioConsole",
    "virtio_net": "VirtioNet",
    "virtio_rng": "VirtioRng",
}


def load(name: str) -> type[Device]:
    """The class of a device by the name of its file."""
    if name not in DEVICES:
        raise UsageError(f"there is no device {name!r}", instead(name, "devices", DEVICES))
    module, _, kind = DEVICES[name].rpartition(":")
    found: type[Device] = getattr(import_module(module or f"dbt.machine.devices.{name}"), kind)
    return found
