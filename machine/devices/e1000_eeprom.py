"""The EEPROM of the 82540EM: a 93C46 of 64 words on the Microwire pins of EECD, and EERD (5.3, 13.4.3, 13.4.4).

What is in it is the map of 5.6: the address, the identity, and a checksum that makes the sum 0xBABA.
"""

from __future__ import annotations

from dbt.machine.devices.e1000_interrupts import E1000Interrupts
from dbt.machine.devices.e1000_registers import E1000Registers
from dbt.machine.registers import State, States

SK, CS, DI, DO = 1, 2, 4, 8
REQ, GNT, PRES = 1 << 6, 1 << 7, 1 << 8
START, DONE = 1, 1 << 4
WORDS = 64
SUM = 0xBABA
COMMAND_BITS, WRITE_BITS = 9, 25  # start, opcode and address; and with 16 bits of data
READ, WRITE, ERASE = 0b10, 0b01, 0b11


def contents(mac: bytes, device: int, vendor: int, subsystem: int, subsystem_vendor: int) -> list[int]:
    """The words (table 5-2); those that are not named are as erased."""
    words = [0xFFFF] * WORDS
    words[0:3] = [mac[2 * n] | mac[2 * n + 1] << 8 for n in range(3)]
    words[0x03:0x05] = [0, 0]  # compatibility: no OEM's; LEDs as the driver likes
    words[0x08:0x0A] = [0x3000, 0x1000]  # printed board assembly number
    words[0x0A] = 0x4403  # signature, full duplex, identity from here
    words[0x0B:0x0F] = [subsystem, subsystem_vendor, device, vendor]
    words[0x0F] = 0x3040  # 82540's defaults: transmit and receive pause
    words[0x21] = 0x7800  # no flash
    words[0x2F] = 0x0602  # LEDs
    words[0x3F] = (SUM - sum(words[:0x3F])) & 0xFFFF
    return words


class E1000Eeprom(E1000Interrupts):
    """EECD and EERD."""

    words = States(WORDS, bits=16)  # as they stay without power
    shifted = State(bits=25)  # what came in since the start bit, which is its highest
    position = State(bits=11)  # 0: no output; 1: the zero before the data; bit `position - 2` of the words
    writable = State(bits=1)  # EWEN was given

    @E1000Registers.EECD.on_read
    def _pins(self) -> int:
        value = self.EECD | PRES | (GNT if self.EECD & REQ else 0)
        return value | (DO if self._output() else 0)

    def _output(self) -> int:
        if self.position < 2:
            return 1 - self.position
        bit = self.position - 2
        return self.words[bit >> 4 & WORDS - 1] >> (~bit & 15) & 1

    @E1000Registers.EECD.on_write
    def _set_pins(self, value: int) -> None:
        old, self.EECD = self.EECD, value & 0x77
        if old & CS and not value & CS:
            self._deselected()
        elif value & CS & old and value & SK & ~old:
            self._clock(value >> 2 & 1)

    def _clock(self, bit: int) -> None:
        """A rising edge of SK."""
        if self.position:
            self.position = self.position % (16 * WORDS + 1) + 1 if self.position > 1 else 2 + 16 * (self.shifted & 63)
        elif (self.shifted or bit) and self.shifted.bit_length() < WRITE_BITS:
            self.shifted = self.shifted << 1 | bit
            if self.shifted.bit_length() == COMMAND_BITS and self.shifted >> 6 & 3 == READ:
                self.position = 1

    def _deselected(self) -> None:
        """CS goes down: what was commanded is done."""
        command, length = self.shifted, self.shifted.bit_length()
        self.shifted = self.position = 0
        if length == COMMAND_BITS:
            operation, address = command >> 6 & 3, command & 63
            if operation == ERASE:
                self._program([address], 0xFFFF)
            elif operation == 0:
                match address >> 4:
                    case 0:
                        self.writable = 0
                    case 2:
                        self._program(range(WORDS), 0xFFFF)
                    case 3:
                        self.writable = 1
        elif length == WRITE_BITS:
            operation, address = command >> 22 & 3, command >> 16 & 63
            if operation == WRITE:
                self._program([address], command & 0xFFFF)
            elif operation == 0 and address >> 4 == 1:
                self._program(range(WORDS), command & 0xFFFF)

    def _program(self, addresses: list[int] | range, value: int) -> None:
        if not self.writable:
            self.guest_error("the EEPROM is written before it was enabled")
            return
        for address in addresses:
            self.words[address] = value

    @E1000Registers.EERD.on_write
    def _read_word(self, value: int) -> None:
        if not value & START:
            self.EERD = value & 0xFF00
            return
        address = value >> 8 & 0xFF
        if address >= WORDS:
            self.guest_error("EERD reads beyond the EEPROM", f": word {address}")
        word = self.words[address] if address < WORDS else 0xFFFF
        self.EERD = word << 16 | address << 8 | DONE

    def load_address(self) -> None:
        """The first receive address, after a reset (5.6.1)."""
        self.RAL[0] = self.words[0] | self.words[1] << 16
        self.RAH[0] = self.words[2] | 1 << 31
