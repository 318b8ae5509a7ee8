"""virtio (OASIS Virtual I/O Device, version 1.2; sections are its): rings in guest memory, devices, transports.

    class VirtioThing(VirtioDevice):                   # a file of machine/devices, as all devices
        DEVICE_ID = 4                                  # section 5
        FEATURES = …                                   # what this kind offers; rings and transports add theirs
        CONFIG = Window(8, CONFIG_SIZES, partial=True, placed=False)
        capacity = Register(0, RO, "…", size=8)        # the configuration space is declared as registers are

        def __init__(self, name, machine, **rings):
            super().__init__(name, machine, (256,), **rings)

        def on_notify(self, queue):                    # there may be buffers
            for chain in self.chains(queue):           # bounded; goes on from a timer
                data = chain.read(0, 16)
                queue.push(chain, chain.write(0, data))
            queue.notify()

    disk = VirtioThing("thing", machine)
    machine.place(VirtioMmio("thing.mmio", machine, irq, disk), 0x0A00_0000)

chain.py: one request; split.py, packed.py: the two kinds of rings; queue.py: what is above both; device.py: the base of
devices; mmio.py: the transport. What a driver may do wrong ends in RingError, which makes a device ask for its reset.
"""

from dbt.machine.virtio.chain import Chain
from dbt.machine.virtio.device import CONFIG_SIZES, VirtioDevice
from dbt.machine.virtio.queue import VirtQueue

__all__ = ["CONFIG_SIZES", "Chain", "VirtQueue", "VirtioDevice"]
