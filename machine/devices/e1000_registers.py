"""The registers of Intel's 82540EM, declared once (PCI/PCI-X Family of Gigabit Ethernet Controllers, chapter 13).

Statistics stop at their highest value and are cleared by reads (13.7). The packet buffer memory (13.8.11), the serial
interface and the flash are not there.
"""

from __future__ import annotations

from dbt.machine.memory.access import AccessSizes
from dbt.machine.pci import PciFunction
from dbt.machine.registers import RO, RW, WO, Fields, Register, Registers, Window

MOST = 0xFFFF_FFFF
CAUSES: Fields = {
    "TXDW": 0, "TXQE": 1, "LSC": 2, "RXSEQ": 3, "RXDMT0": 4, "RXO": 6, "RXT0": 7, "MDAC": 9, "RXCFG": 10,
    "PHYINT": 12, "GPI_SDP2": 13, "GPI_SDP3": 14, "TXD_LOW": 15, "SRPD": 16,
}  # fmt: skip
ALL_CAUSES = sum(1 << bit for bit in CAUSES.values() if isinstance(bit, int))


class Counter(Register):
    """A statistics register: read to clear."""

    def __init__(self, offset: int, doc: str) -> None:
        super().__init__(offset, RO, doc)

    def __set_name__(self, owner: type, name: str) -> None:
        super().__set_name__(owner, name)

        def read(device: object) -> int:
            value: int = device.__dict__[name]
            device.__dict__[name] = 0
            return value

        self.reader = read


class E1000Registers(PciFunction):
    """The register file, and the PHY's behind MDIC."""

    REGS = Window(0x20000, AccessSizes((1, 8), (1, 4)))
    IO = Window(0x40)
    PHY = Window(64, AccessSizes((2, 2), (2, 2)), placed=False)

    # General (13.4.1 to 13.4.16)
    CTRL = Register(
        0x0000, RW, "device control", reset=0x0014_0241, mask=0xDCFC_1BE9,
        fields={"FD": 0, "LRST": 3, "ASDE": 5, "SLU": 6, "ILOS": 7, "SPEED": (9, 8), "FRCSPD": 11, "FRCDPLX": 12,
                "SDP0_DATA": 18, "SDP1_DATA": 19, "ADVD3WUC": 20, "EN_PHY_PWR_MGMT": 21, "SDP0_IODIR": 22,
                "SDP1_IODIR": 23, "RST": 26, "RFCE": 27, "TFCE": 28, "VME": 30, "PHY_RST": 31},
    )  # fmt: skip
    STATUS = Register(
        0x0008, RO, "device status",
        fields={"FD": 0, "LU": 1, "TXOFF": 4, "TBIMODE": 5, "SPEED": (7, 6), "ASDV": (9, 8), "MTXCKOK": 10,
                "PCI66": 11, "BUS64": 12, "PCIX_MODE": 13},
    )  # fmt: skip
    EECD = Register(
        0x0010, RW, "EEPROM and flash control", mask=0x77, reset=0x10,
        fields={"SK": 0, "CS": 1, "DI": 2, "DO": 3, "FWE": (5, 4), "EE_REQ": 6, "EE_GNT": 7, "EE_PRES": 8,
                "EE_SIZE": 9},
    )  # fmt: skip
    EERD = Register(0x0014, RW, "EEPROM read", fields={"START": 0, "DONE": 4, "ADDR": (15, 8), "DATA": (31, 16)})
    CTRL_EXT = Register(
        0x0018, RW, "extended device control", mask=0x00FF_BFCF,
        fields={"GPI_EN": (3, 0), "SDP6_DATA": 6, "SDP7_DATA": 7, "SDP6_IODIR": 10, "SDP7_IODIR": 11, "ASDCHK": 12,
                "EE_RST": 13, "SPD_BYPS": 15, "RO_DIS": 17, "LINK_MODE": (23, 22)},
    )  # fmt: skip
    FLA = Register(0x001C, RW, "flash access", mask=0, unimplemented=MOST)
    MDIC = Register(
        0x0020, RW, "MDI control: the way to the PHY",
        fields={"DATA": (15, 0), "REGADD": (20, 16), "PHYADD": (25, 21), "OP": (27, 26), "R": 28, "I": 29, "E": 30},
    )  # fmt: skip
    FCAL = Register(0x0028, RW, "flow control address, low")
    FCAH = Register(0x002C, RW, "flow control address, high", mask=0xFFFF)
    FCT = Register(0x0030, RW, "flow control type", mask=0xFFFF)
    VET = Register(0x0038, RW, "VLAN EtherType", mask=0xFFFF, reset=0x8100)
    FCTTV = Register(0x0170, RW, "flow control transmit timer value", mask=0xFFFF)
    LEDCTL = Register(0x0E00, RW, "LED control", reset=0x0706_8302, mask=0xCFCF_CFCF)
    PBA = Register(
        0x1000, RW, "packet buffer allocation, in KB", mask=0xFFFF, reset=0x0010_0030,
        fields={"RXA": (15, 0), "TXA": (31, 16)},
    )  # fmt: skip

    # Interrupts (13.4.17 to 13.4.21)
    ICR = Register(0x00C0, RW, "interrupt causes; read to clear", mask=0, clear=MOST, fields=CAUSES)
    ITR = Register(0x00C4, RW, "least time between interrupts, in 256 ns", mask=0xFFFF)
    ICS = Register(0x00C8, WO, "set causes", mask=ALL_CAUSES, fields=CAUSES)
    IMS = Register(0x00D0, RW, "interrupt mask: write to set", mask=MOST, fields=CAUSES)
    IMC = Register(0x00D8, WO, "interrupt mask: write to clear", mask=MOST, fields=CAUSES)

    # Receiving (13.4.22 to 13.4.32, 13.5)
    RCTL = Register(
        0x0100, RW, "receive control", mask=0x06DF_B3FE,
        fields={"EN": 1, "SBP": 2, "UPE": 3, "MPE": 4, "LPE": 5, "LBM": (7, 6), "RDMTS": (9, 8), "MO": (13, 12),
                "BAM": 15, "BSIZE": (17, 16), "VFE": 18, "CFIEN": 19, "CFI": 20, "DPF": 22, "PMCF": 23, "BSEX": 25,
                "SECRC": 26},
    )  # fmt: skip
    FCRTL = Register(0x2160, RW, "flow control receive threshold, low", mask=0x8000_FFF8, fields={"XONE": 31})
    FCRTH = Register(0x2168, RW, "flow control receive threshold, high", mask=0x0000_FFF8)
    RDFH = Register(0x2410, RW, "receive data FIFO head", mask=0x1FFF)
    RDFT = Register(0x2418, RW, "receive data FIFO tail", mask=0x1FFF)
    RDFHS = Register(0x2420, RW, "receive data FIFO head, saved", mask=0x1FFF)
    RDFTS = Register(0x2428, RW, "receive data FIFO tail, saved", mask=0x1FFF)
    RDFPC = Register(0x2430, RW, "receive data FIFO packet count", mask=0x1FFF)
    RDBAL = Register(0x2800, RW, "receive ring, low", mask=0xFFFF_FFF0)
    RDBAH = Register(0x2804, RW, "receive ring, high")
    RDLEN = Register(0x2808, RW, "receive ring, bytes", mask=0xF_FF80)
    RDH = Register(0x2810, RW, "receive head", mask=0xFFFF)
    RDT = Register(0x2818, RW, "receive tail", mask=0xFFFF)
    RDTR = Register(0x2820, RW, "receive delay, in 1.024 us", mask=0xFFFF, fields={"DELAY": (15, 0), "FPD": 31})
    RXDCTL = Register(
        0x2828, RW, "receive descriptor control", reset=0x0101_0000, mask=0x013F_3F3F,
        fields={"PTHRESH": (5, 0), "HTHRESH": (13, 8), "WTHRESH": (21, 16), "GRAN": 24},
    )  # fmt: skip
    RADV = Register(0x282C, RW, "receive absolute delay, in 1.024 us", mask=0xFFFF)
    RSRPD = Register(0x2C00, RW, "size of small packets", mask=0xFFF)
    RXCSUM = Register(
        0x5000, RW, "receive checksums", mask=0x3FF, fields={"PCSS": (7, 0), "IPOFLD": 8, "TUOFLD": 9}
    )  # fmt: skip
    MTA = Registers(0x5200, RW, "multicast table", count=128)
    RAL = Registers(0x5400, RW, "receive address, low", count=16, stride=8)
    RAH = Registers(
        0x5404, RW, "receive address, high", count=16, stride=8, mask=0x8003_FFFF,
        fields={"RAH": (15, 0), "AS": (17, 16), "AV": 31},
    )  # fmt: skip
    VFTA = Registers(0x5600, RW, "VLAN filter table", count=128)

    # Sending (13.4.33 to 13.4.46, 13.6)
    TCTL = Register(
        0x0400, RW, "transmit control", mask=0x013F_FFFA, unimplemented=1 << 22,
        fields={"EN": 1, "PSP": 3, "CT": (11, 4), "COLD": (21, 12), "SWXOFF": 22, "RTLC": 24},
    )  # fmt: skip
    TIPG = Register(0x0410, RW, "inter-packet gaps", mask=0x3FFF_FFFF)
    AIFS = Register(0x0458, RW, "adaptive inter-frame spacing", mask=0xFFFF)
    TXDMAC = Register(0x3000, RW, "transmit DMA control", mask=1)
    TDFH = Register(0x3410, RW, "transmit data FIFO head", mask=0x7FF)
    TDFT = Register(0x3418, RW, "transmit data FIFO tail", mask=0x7FF)
    TDFHS = Register(0x3420, RW, "transmit data FIFO head, saved", mask=0x1FFF)
    TDFTS = Register(0x3428, RW, "transmit data FIFO tail, saved", mask=0x1FFF)
    TDFPC = Register(0x3430, RW, "transmit data FIFO packet count", mask=0x1FFF)
    TDBAL = Register(0x3800, RW, "transmit ring, low", mask=0xFFFF_FFF0)
    TDBAH = Register(0x3804, RW, "transmit ring, high")
    TDLEN = Register(0x3808, RW, "transmit ring, bytes", mask=0xF_FF80)
    TDH = Register(0x3810, RW, "transmit head", mask=0xFFFF)
    TDT = Register(0x3818, RW, "transmit tail", mask=0xFFFF)
    TIDV = Register(0x3820, RW, "transmit delay, in 1.024 us", mask=0xFFFF, fields={"DELAY": (15, 0), "FPD": 31})
    TXDCTL = Register(
        0x3828, RW, "transmit descriptor control", mask=0xFF3F_3F3F,
        fields={"PTHRESH": (5, 0), "HTHRESH": (13, 8), "WTHRESH": (21, 16), "GRAN": 24, "LWTHRESH": (31, 25)},
    )  # fmt: skip
    TADV = Register(0x382C, RW, "transmit absolute delay, in 1.024 us", mask=0xFFFF)
    TSPMT = Register(0x3830, RW, "TCP segmentation pad and threshold")

    # Wake-up (chapter 6, 13.6): the machine does not sleep, the registers remember
    WUC = Register(0x5800, RW, "wake-up control", mask=0xF, fields={"APME": 0, "PME_EN": 1, "APMPME": 3})
    WUFC = Register(0x5808, RW, "wake-up filters", mask=0x000F_80FF)
    WUS = Register(0x5810, RW, "wake-up status", mask=0, clear=0x000F_80FF)
    MANC = Register(0x5820, RW, "management control")
    IPAV = Register(0x5838, RW, "which IP addresses are valid", mask=0x0001_000F)
    IP4AT = Registers(0x5840, RW, "IPv4 addresses", count=4, stride=8)
    IP6AT = Registers(0x5880, RW, "IPv6 address", count=4)
    WUPL = Register(0x5900, RO, "length of the packet that woke")
    WUPM = Registers(0x5A00, RO, "the packet that woke", count=32)
    FFLT = Registers(0x5F00, RW, "lengths of flexible filters", count=4, stride=8, mask=0x7FF)
    FFMT = Registers(0x9000, RW, "masks of flexible filters", count=128, stride=8, mask=0xF)
    FFVT = Registers(0x9800, RW, "values of flexible filters", count=128, stride=8)

    # Statistics (13.7)
    CRCERRS = Counter(0x4000, "CRC errors")
    ALGNERRC = Counter(0x4004, "alignment errors")
    SYMERRS = Counter(0x4008, "symbol errors")
    RXERRC = Counter(0x400C, "receive errors")
    MPC = Counter(0x4010, "packets missed for want of room")
    SCC = Counter(0x4014, "single collisions")
    ECOL = Counter(0x4018, "excessive collisions")
    MCC = Counter(0x401C, "multiple collisions")
    LATECOL = Counter(0x4020, "late collisions")
    COLC = Counter(0x4028, "collisions")
    DC = Counter(0x4030, "defers")
    TNCRS = Counter(0x4034, "sent without carrier")
    SEC = Counter(0x4038, "sequence errors")
    CEXTERR = Counter(0x403C, "carrier extension errors")
    RLEC = Counter(0x4040, "length errors")
    XONRXC = Counter(0x4048, "XON received")
    XONTXC = Counter(0x404C, "XON sent")
    XOFFRXC = Counter(0x4050, "XOFF received")
    XOFFTXC = Counter(0x4054, "XOFF sent")
    FCRUC = Counter(0x4058, "other flow control received")
    PRC64 = Counter(0x405C, "received, 64 bytes")
    PRC127 = Counter(0x4060, "received, 65 to 127 bytes")
    PRC255 = Counter(0x4064, "received, 128 to 255 bytes")
    PRC511 = Counter(0x4068, "received, 256 to 511 bytes")
    PRC1023 = Counter(0x406C, "received, 512 to 1023 bytes")
    PRC1522 = Counter(0x4070, "received, more bytes")
    GPRC = Counter(0x4074, "good packets received")
    BPRC = Counter(0x4078, "broadcasts received")
    MPRC = Counter(0x407C, "multicasts received")
    GPTC = Counter(0x4080, "good packets sent")
    GORCL = Register(0x4088, RO, "good octets received, low")
    GORCH = Register(0x408C, RO, "good octets received, high; clears both")
    GOTCL = Register(0x4090, RO, "good octets sent, low")
    GOTCH = Register(0x4094, RO, "good octets sent, high; clears both")
    RNBC = Counter(0x40A0, "received when there were no buffers")
    RUC = Counter(0x40A4, "undersize packets")
    RFC = Counter(0x40A8, "fragments")
    ROC = Counter(0x40AC, "oversize packets")
    RJC = Counter(0x40B0, "jabbers")
    MGTPRC = Counter(0x40B4, "management packets received")
    MGTPDC = Counter(0x40B8, "management packets dropped")
    MGTPTC = Counter(0x40BC, "management packets sent")
    TORL = Register(0x40C0, RO, "octets received, low")
    TORH = Register(0x40C4, RO, "octets received, high; clears both")
    TOTL = Register(0x40C8, RO, "octets sent, low")
    TOTH = Register(0x40CC, RO, "octets sent, high; clears both")
    TPR = Counter(0x40D0, "packets received")
    TPT = Counter(0x40D4, "packets sent")
    PTC64 = Counter(0x40D8, "sent, 64 bytes")
    PTC127 = Counter(0x40DC, "sent, 65 to 127 bytes")
    PTC255 = Counter(0x40E0, "sent, 128 to 255 bytes")
    PTC511 = Counter(0x40E4, "sent, 256 to 511 bytes")
    PTC1023 = Counter(0x40E8, "sent, 512 to 1023 bytes")
    PTC1522 = Counter(0x40EC, "sent, more bytes")
    MPTC = Counter(0x40F0, "multicasts sent")
    BPTC = Counter(0x40F4, "broadcasts sent")
    TSCTC = Counter(0x40F8, "segmentation contexts sent")
    TSCTFC = Counter(0x40FC, "segmentation contexts that failed")

    # I/O space (13.2.2): the registers again
    IOADDR = Register(0x00, RW, "offset of a register", window=IO, mask=0xF_FFFF)
    IODATA = Register(0x04, RW, "the register", window=IO)

    # The PHY, an M88E1011 (chapter 10, 13.4.8)
    PCTRL = Register(
        0, RW, "PHY control", size=2, window=PHY, reset=0x1140, mask=0xFFC0,
        fields={"SPEED_MSB": 6, "COLLISION_TEST": 7, "FD": 8, "RESTART_AN": 9, "ISOLATE": 10, "POWER_DOWN": 11,
                "AN_EN": 12, "SPEED_LSB": 13, "LOOPBACK": 14, "RESET": 15},
    )  # fmt: skip
    PSTATUS = Register(2, RO, "PHY status", size=2, window=PHY, reset=0x7949, fields={"LINK": 2, "AN_COMPLETE": 5})
    PID = Register(4, RO, "PHY identifier", size=2, window=PHY, reset=0x0141)
    EPID = Register(6, RO, "extended PHY identifier", size=2, window=PHY, reset=0x0C20)
    ANA = Register(8, RW, "auto-negotiation advertisement", size=2, window=PHY, reset=0x0DE1, mask=0xBFFF)
    LPA = Register(10, RO, "link partner's ability", size=2, window=PHY)
    ANE = Register(12, RO, "auto-negotiation expansion", size=2, window=PHY)
    NPT = Register(14, RW, "next page to send", size=2, window=PHY, reset=0x2001, mask=0xBFFF)
    LPN = Register(16, RO, "link partner's next page", size=2, window=PHY)
    GCON = Register(18, RW, "1000BASE-T control", size=2, window=PHY, reset=0x0E00, mask=0xFF00)
    GSTATUS = Register(20, RO, "1000BASE-T status", size=2, window=PHY)
    EPSTATUS = Register(30, RO, "extended PHY status", size=2, window=PHY, reset=0x3000)
    PSCON = Register(32, RW, "PHY specific control", size=2, window=PHY, reset=0x0360)
    PSSTAT = Register(34, RO, "PHY specific status", size=2, window=PHY)
    PINTE = Register(36, RW, "PHY interrupt enable", size=2, window=PHY)
    PINTS = Register(38, RO, "PHY interrupt status; read to clear", size=2, window=PHY)
    EPSCON1 = Register(40, RW, "extended PHY specific control 1", size=2, window=PHY, reset=0x0D60)
    PREC = Register(42, RO, "PHY receive errors", size=2, window=PHY)
    PLED = Register(48, RW, "PHY LED control", size=2, window=PHY, reset=0x4100)
    EPSCON2 = Register(52, RW, "extended PHY specific control 2", size=2, window=PHY, reset=0x000A)
    EPSSTAT = Register(54, RO, "extended PHY specific status", size=2, window=PHY, reset=0x848B)
    R30PS = Register(58, RW, "page of register 30", size=2, window=PHY)
    R30AW = Register(60, RW, "register 30", size=2, window=PHY)

    def count(self, name: str, number: int = 1) -> None:
        """A statistics register goes up, and not beyond its highest value."""
        values = self.__dict__
        values[name] = min(values[name] + number, MOST)

    def count_octets(self, low: str, high: str, number: int) -> None:
        """A pair of statistics registers."""
        values = self.__dict__
        total = min((values[high] << 32 | values[low]) + number, (1 << 64) - 1)
        values[low], values[high] = total & MOST, total >> 32

    def _clear_octets(self, low: str, high: str) -> int:
        values = self.__dict__
        value: int = values[high]
        values[low] = values[high] = 0
        return value

    @GORCH.on_read
    def _read_gorch(self) -> int:
        return self._clear_octets("GORCL", "GORCH")

    @GOTCH.on_read
    def _read_gotch(self) -> int:
        return self._clear_octets("GOTCL", "GOTCH")

    @TORH.on_read
    def _read_torh(self) -> int:
        return self._clear_octets("TORL", "TORH")

    @TOTH.on_read
    def _read_toth(self) -> int:
        return self._clear_octets("TOTL", "TOTH")
