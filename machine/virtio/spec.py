"""Numbers of the virtio specification (version 1.2) that rings, transports and devices share."""

from __future__ import annotations

# Device status, section 2.1.
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, DEVICE_NEEDS_RESET, FAILED = 1, 2, 4, 8, 64, 128
STATUS_FIELDS: dict[str, int | tuple[int, int]] = {
    "ACKNOWLEDGE": 0, "DRIVER": 1, "DRIVER_OK": 2, "FEATURES_OK": 3, "DEVICE_NEEDS_RESET": 6, "FAILED": 7,
}  # fmt: skip

# Feature bits that no device kind owns, as masks: section 6, and 6.3 for those of legacy interfaces.
NOTIFY_ON_EMPTY = 1 << 24
ANY_LAYOUT = 1 << 27
INDIRECT_DESC = 1 << 28
EVENT_IDX = 1 << 29
VERSION_1 = 1 << 32
ACCESS_PLATFORM = 1 << 33
RING_PACKED = 1 << 34
IN_ORDER = 1 << 35
ORDER_PLATFORM = 1 << 36
NOTIFICATION_DATA = 1 << 38
RING_RESET = 1 << 40

# Descriptors, sections 2.7.5 and 2.8.1.
NEXT, WRITE, INDIRECT = 1, 2, 4
AVAIL, USED = 1 << 7, 1 << 15  # packed
DESCRIPTOR_SIZE = 16

# Split rings: avail.flags and used.flags, sections 2.7.6 and 2.7.8.
NO_INTERRUPT = NO_NOTIFY = 1

# Packed rings: event suppression, section 2.8.10.
EVENT_ENABLE, EVENT_DISABLE, EVENT_DESC = 0, 1, 2

# Interrupt status, sections 4.1.4.5 and 4.2.2.
USED_BUFFER, CONFIGURATION_CHANGE = 1, 2

MAX_QUEUE_SIZE = 1 << 15
ADDRESSES = (1 << 64) - 1


def need_event(event: int, new: int, old: int) -> bool:
    """Whether the index has passed `event` on its way from `old` to `new`: section 2.7.10."""
    return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF


def split_sizes(size: int) -> tuple[int, int, int]:
    """Bytes of descriptor table, available ring and used ring, with the event indexes: section 2.7."""
    return DESCRIPTOR_SIZE * size, 6 + 2 * size, 6 + 8 * size


def legacy_layout(address: int, size: int, align: int) -> tuple[int, int, int]:
    """Where the three parts of a queue are for legacy drivers, who give one address: section 2.7.2."""
    table, available, _ = split_sizes(size)
    places = address, address + table, (address + table + available + align - 1) & -align
    return tuple(place & ADDRESSES for place in places)  # type: ignore[return-value]
