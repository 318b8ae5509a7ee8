"""Bits of the task file (ATA8-ACS, 6) and opcodes of commands (ATA8-ACS, table B.2; retired ones: ATA-4)."""

from __future__ import annotations

from enum import IntEnum

# Status.
ERR, DRQ, DSC, DF, DRDY, BSY = 0x01, 0x08, 0x10, 0x20, 0x40, 0x80
READY = DRDY | DSC

# Error.
ABRT, IDNF, UNC, WP, ICRC = 0x04, 0x10, 0x40, 0x40, 0x80
DIAGNOSED = 0x01  # after a reset or EXECUTE DEVICE DIAGNOSTIC: this device passed

# Device.
DEV, LBA, FIXED = 0x10, 0x40, 0xA0  # FIXED: obsolete bits that read as ones

# Device control.
NIEN, SRST, HOB = 0x02, 0x04, 0x80

SECTOR = 512
MAX_LBA28, MAX_LBA48 = 1 << 28, 1 << 48


class Op(IntEnum):
    """Opcodes, by the names of the standard."""

    NOP = 0x00
    DATA_SET_MANAGEMENT = 0x06
    DEVICE_RESET = 0x08
    RECALIBRATE = 0x10
    READ_SECTORS = 0x20
    READ_SECTORS_WITHOUT_RETRIES = 0x21
    READ_SECTORS_EXT = 0x24
    READ_DMA_EXT = 0x25
    READ_NATIVE_MAX_ADDRESS_EXT = 0x27
    READ_MULTIPLE_EXT = 0x29
    READ_LOG_EXT = 0x2F
    WRITE_SECTORS = 0x30
    WRITE_SECTORS_WITHOUT_RETRIES = 0x31
    WRITE_SECTORS_EXT = 0x34
    WRITE_DMA_EXT = 0x35
    WRITE_MULTIPLE_EXT = 0x39
    WRITE_DMA_FUA_EXT = 0x3D
    READ_VERIFY_SECTORS = 0x40
    READ_VERIFY_SECTORS_WITHOUT_RETRIES = 0x41
    READ_VERIFY_SECTORS_EXT = 0x42
    READ_FPDMA_QUEUED = 0x60
    WRITE_FPDMA_QUEUED = 0x61
    SEEK = 0x70
    EXECUTE_DEVICE_DIAGNOSTIC = 0x90
    INITIALIZE_DEVICE_PARAMETERS = 0x91
    STANDBY_IMMEDIATE_OLD = 0x94
    IDLE_IMMEDIATE_OLD = 0x95
    STANDBY_OLD = 0x96
    IDLE_OLD = 0x97
    CHECK_POWER_MODE_OLD = 0x98
    SLEEP_OLD = 0x99
    PACKET = 0xA0
    IDENTIFY_PACKET_DEVICE = 0xA1
    SMART = 0xB0
    READ_MULTIPLE = 0xC4
    WRITE_MULTIPLE = 0xC5
    SET_MULTIPLE_MODE = 0xC6
    READ_DMA = 0xC8
    READ_DMA_WITHOUT_RETRIES = 0xC9
    WRITE_DMA = 0xCA
    WRITE_DMA_WITHOUT_RETRIES = 0xCB
    WRITE_MULTIPLE_FUA_EXT = 0xCE
    STANDBY_IMMEDIATE = 0xE0
    IDLE_IMMEDIATE = 0xE1
    STANDBY = 0xE2
    IDLE = 0xE3
    CHECK_POWER_MODE = 0xE5
    SLEEP = 0xE6
    FLUSH_CACHE = 0xE7
    FLUSH_CACHE_EXT = 0xEA
    IDENTIFY_DEVICE = 0xEC
    SET_FEATURES = 0xEF
    READ_NATIVE_MAX_ADDRESS = 0xF8


def name(opcode: int) -> str:
    """What the standard calls it, for logs."""
    return Op(opcode).name.replace("_", " ") if opcode in set(Op) else f"command {opcode:02X}h"
