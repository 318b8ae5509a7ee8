"""One end of a TCP connection with a guest (RFC 9293, 6298, 7323's window scale): what the remote host would be.

What is behind it (`tcp.py`) gives data to `sending` and takes what `on_data` brings. There is no congestion between us
and the guest, so data leaves as the guest's window allows; after a timeout it goes on slowly. No selective
acknowledgements, no timestamps: little is lost on this link, but by a guest or a hub that drops it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dbt.machine.net.offload import CSUM, GSO_TCPV4, GSO_TCPV6, TSO4, TSO6, Offload, ones_sum
from dbt.machine.net.user.packets import TCP, ether, ip_header, kind_of
from dbt.machine.net.user.segments import (
    ACK,
    BUFFER,
    BURST,
    FIN,
    HALF,
    MASK,
    MSS,
    PSH,
    RETRIES,
    RST,
    SYN,
    Pieces,
    Recovery,
    RoundTrip,
    State,
    before,
    complete,
    left_to_card,
    parse_syn,
    syn_options,
)  # fmt: skip

if TYPE_CHECKING:
    from dbt.machine.net.user.net import UserNet

LEFT, LEFT6 = Offload(True, 34, 16), Offload(True, 54, 16)  # a checksum for the card to do


class Endpoint:
    """`guest` and `remote` are (address, port). Variables have the RFC's names."""

    def __init__(self, net: UserNet, guest: tuple[bytes, int], remote: tuple[bytes, int]) -> None:
        self.net = net
        self.guest, self.remote = guest, remote
        self.state = State.WAITING
        self.snd_una = self.snd_nxt = self.snd_max = self.iss = int.from_bytes(os.urandom(4), "big")
        self.snd_wnd = self.snd_wl1 = self.snd_wl2 = 0
        self.rcv_nxt = 0
        self.mss = self.snd_scale = self.rcv_scale = 0
        self.sending = bytearray()  # from snd_una on
        self.ending = self.sent_fin = self.got_fin = self.fin_acked = False  # ending: nothing follows `sending`
        self.fin_at: int | None = None
        self.last = net.loop.clock.now
        self._advertised = 0
        self._retries, self._cwnd = 0, BUFFER
        self._recovery = Recovery()
        self._pieces = Pieces(BUFFER)
        self._trip = RoundTrip()
        self._timer = net.loop.timer(self._timeout)
        self._sum = ones_sum(guest[0] + remote[0]) + TCP
        self._six = len(guest[0]) == 16
        self._most = MSS[len(guest[0])]
        self._whole = CSUM | (TSO6 if self._six else TSO4)  # what a card has to take for large segments

    # What the other side of the router does

    def on_open(self) -> None:
        """The guest has agreed."""

    def on_data(self, data: bytes | memoryview) -> None:
        """Data in order."""

    def on_end(self) -> None:
        """The guest sends no more."""

    def on_room(self) -> None:
        """Some of `sending` is gone."""

    def on_close(self, *, reset: bool) -> None:
        """It is over."""

    def pending(self) -> int:
        """How much of what `on_data` got is still here."""
        return 0

    # Starting and ending

    def learn(self, sequence: int, window: int, given: memoryview) -> None:
        """What a SYN of the guest's says."""
        self.rcv_nxt = sequence + 1 & MASK
        self.mss, self.snd_scale, self.rcv_scale = parse_syn(given, self._most)
        self.snd_wnd, self.snd_wl1, self.snd_wl2 = window, sequence, self.snd_una

    def start(self, state: State) -> None:
        """Send a SYN, or one that answers the guest's."""
        self.state = state
        self.snd_nxt = self.snd_max = self.iss + 1 & MASK
        self._trip.sent(self.snd_nxt, self.net.loop.clock.now)
        self._send_syn()
        self._arm()

    def _send_syn(self) -> None:
        said = syn_options(self._most, scale=bool(self.rcv_scale) or self.state is State.SYN_SENT)
        self._send(self.iss, SYN | (0 if self.state is State.SYN_SENT else ACK), said, scaled=False)

    def finish(self, *, reset: bool) -> None:
        """Be over; `on_close` is called once."""
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self._timer.cancel()
            self.net.blocked.pop(self, None)
            self.on_close(reset=reset)

    def abort(self) -> None:
        """Reset the guest's connection."""
        if self.state in {State.OPEN, State.SYN_RECEIVED}:
            self._send(self.snd_max, RST | ACK)
        self.finish(reset=True)

    def refuse(self) -> None:
        """Answer the guest's SYN with a reset."""
        self._send(0, RST | ACK)
        self.finish(reset=True)

    # From the guest

    def receive(self, sequence: int, ack: int, flags: int, window: int, given: memoryview, data: memoryview) -> None:
        """A segment."""
        self.last = self.net.loop.clock.now
        if self.state is State.OPEN or self.state is State.TIME_WAIT:
            self._segment(sequence, ack, flags, window, data)
        elif self.state is State.SYN_RECEIVED:
            self._answered(sequence, ack, flags, window, data)
        elif self.state is State.SYN_SENT:
            self._agreed(sequence, ack, flags, window, given)
        elif self.state is State.WAITING and flags & RST:
            self.finish(reset=True)

    def _agreed(self, sequence: int, ack: int, flags: int, window: int, given: memoryview) -> None:
        if flags & ACK and ack != self.snd_nxt:
            if not flags & RST:
                self._send(ack, RST)
        elif flags & RST:
            if flags & ACK:
                self.finish(reset=True)
        elif flags & SYN:
            self.learn(sequence, window, given)
            if flags & ACK:
                self._opened(ack)
                self.acknowledge()
                self.on_open()
            else:  # both at once
                self.state = State.SYN_RECEIVED
                self._send_syn()

    def _answered(self, sequence: int, ack: int, flags: int, window: int, data: memoryview) -> None:
        if flags & RST:
            if sequence == self.rcv_nxt:
                self.finish(reset=True)
        elif flags & SYN:
            if sequence + 1 & MASK == self.rcv_nxt:
                self._send_syn()
        elif flags & ACK:
            if ack != self.snd_nxt:
                self._send(ack, RST)
                return
            self._opened(ack)
            self.snd_wnd = window << self.snd_scale
            self.on_open()
            self._segment(sequence, ack, flags, window, data)

    def _opened(self, ack: int) -> None:
        self.state = State.OPEN
        self.snd_una, self._retries = ack, 0
        self._trip.acknowledged(ack, self.net.loop.clock.now)
        self._timer.cancel()

    def _segment(self, sequence: int, ack: int, flags: int, window: int, data: memoryview) -> None:
        offset = (sequence - self.rcv_nxt + HALF & MASK) - HALF  # of its first byte in the window
        room = self.window()
        length = len(data) + (flags & FIN)
        if flags & RST:  # RFC 5961, 3.2
            if offset == 0:
                self.finish(reset=True)
            elif 0 < offset < room:
                self.acknowledge()
            return
        if flags & SYN or not (0 <= offset < max(room, 1) or offset < 0 < offset + length):
            self.acknowledge()
            return
        if not flags & ACK or not self._acknowledged(sequence, ack, window, len(data)):
            return
        if length and not self.got_fin:
            self._take(sequence, offset, room, data, fin=bool(flags & FIN))
            if self.state is not State.CLOSED:
                self.acknowledge()
        elif length:
            self.acknowledge()
        if self.state is State.OPEN:
            self.output()

    def _acknowledged(self, sequence: int, ack: int, window: int, length: int) -> bool:
        """Look at what a segment acknowledges; whether the rest of it is good."""
        acked = ack - self.snd_una & MASK
        flight = self.snd_max - self.snd_una & MASK
        if acked > flight:
            if acked < HALF:  # what was never sent
                self.acknowledge()
                return False
            return True  # old
        window <<= self.snd_scale
        if acked:
            self._advance(ack, acked)
            if self.state is State.CLOSED or self.state is State.TIME_WAIT:
                return False
        elif flight and not length and window == self.snd_wnd and self._recovery.duplicate(self.snd_max):
            self._again()
        if (sequence - self.snd_wl1 & MASK) < HALF and (ack - self.snd_wl2 & MASK) < HALF:
            self.snd_wnd, self.snd_wl1, self.snd_wl2 = window, sequence, ack
        return True

    def _advance(self, ack: int, acked: int) -> None:
        gone = min(acked, len(self.sending))
        del self.sending[:gone]
        self.fin_acked = self.sent_fin and acked > gone
        if (self.snd_nxt - self.snd_una & MASK) < acked:
            self.snd_nxt = ack
        self.snd_una = ack
        self._retries = 0
        self._cwnd = min(self._cwnd + acked, BUFFER)
        self._trip.acknowledged(ack, self.net.loop.clock.now)
        self._timer.cancel()
        if self._recovery.acknowledged(ack):
            self._again()
        if self.snd_una != self.snd_max:
            self._arm()
        elif self.fin_acked and self.got_fin:
            self.over(wait=False)
        if gone:
            self.on_room()

    def over(self, *, wait: bool) -> None:
        """Both sides have ended, and we know; `wait`: the guest may not."""
        del wait
        self.finish(reset=False)

    def _take(self, sequence: int, offset: int, room: int, data: memoryview, *, fin: bool) -> None:
        """Data that is at least partly in the window."""
        if fin and offset + len(data) <= room:
            self.fin_at = sequence + len(data) & MASK
        if offset < 0:
            data, offset = data[-offset:], 0
        data = data[: max(room - offset, 0)]
        if offset:
            self._pieces.keep(self.rcv_nxt + offset & MASK, data)
            return
        follows: memoryview | bytes = data
        while follows and self.state is State.OPEN:
            self.rcv_nxt = self.rcv_nxt + len(follows) & MASK
            self.on_data(follows)
            follows = self._pieces.take(self.rcv_nxt)
        if self.fin_at == self.rcv_nxt and self.state is not State.CLOSED:
            self.rcv_nxt = self.rcv_nxt + 1 & MASK
            self.got_fin = True
            self.on_end()
            if self.state is State.OPEN and self.fin_acked:
                self.over(wait=True)

    # To the guest

    def window(self) -> int:
        """How much more we take."""
        return max(BUFFER - self.pending(), 0) if self.rcv_scale else max(0xFFFF - self.pending(), 0)

    def acknowledge(self) -> None:
        """Say what has come, and what we take; with a number that is in the guest's window, if that has shrunk."""
        flight = self.snd_max - self.snd_una & MASK
        self._send(self.snd_una + min(flight, max(self.snd_wnd, self.sent_fin)) & MASK, ACK)

    def window_grew(self) -> None:
        """Tell the guest, if it makes a difference (RFC 9293, 3.8.6.2.2)."""
        grown = self.rcv_nxt + self.window() - self._advertised & MASK
        enough = (BUFFER if self.rcv_scale else 0xFFFF) // 4
        if self.state is State.OPEN and not self.got_fin and enough <= grown < HALF:
            self.acknowledge()

    def output(self) -> None:
        """Send what the guest's window allows."""
        if self.state is not State.OPEN:
            return
        accepts = self.net.device.accepts if self.net.device is not None else 0
        whole = accepts & self._whole == self._whole
        most = (65475 // self.mss) * self.mss if whole else self.mss
        budget = BURST
        while True:
            sent = self.snd_nxt - self.snd_una & MASK
            left = len(self.sending) - sent
            fits = min(self.snd_wnd, self._cwnd) - sent
            length = max(min(left, fits, most), 0)
            if left > 0:
                if not length or (length < min(self.mss, left) and sent):
                    break  # a small piece waits for what is under way (RFC 9293, 3.8.6.2.1)
            elif left < 0 or not self.ending or self.fin_acked:
                break
            if budget <= 0:
                self.net.later(self, soon=True)
                break
            flags = ACK | (PSH if length == left else 0) | (FIN if self.ending and length == left else 0)
            if not self._send(self.snd_nxt, flags, b"", self.sending[sent : sent + length]):
                self.net.later(self, soon=False)
                break
            budget -= 1
            self._sent(length + (flags & FIN))
        if self._timer.deadline is None and (self.sending or self.snd_una != self.snd_nxt):
            self._arm()

    def _sent(self, length: int) -> None:
        self.snd_nxt = self.snd_nxt + length & MASK
        self.sent_fin |= self.ending and (self.snd_nxt - self.snd_una & MASK) > len(self.sending)
        if before(self.snd_max, self.snd_nxt):
            self.snd_max = self.snd_nxt
            self._trip.sent(self.snd_nxt, self.net.loop.clock.now)

    def _again(self) -> None:
        """Send the first segment once more (RFC 5681, 3.2)."""
        self._trip.forget()
        data = self.sending[: self.mss]
        fin = FIN if self.sent_fin and len(data) == len(self.sending) else 0
        self._send(self.snd_una, ACK | fin, b"", data)

    def _arm(self) -> None:
        if self.state is not State.CLOSED:
            self.net.loop.after(self._timer, self._trip.rto)

    def _timeout(self) -> None:
        if self.state in {State.CLOSED, State.WAITING}:
            return
        if self.state is State.TIME_WAIT:
            self.finish(reset=False)
            return
        self._trip.back_off()
        if self.state is not State.OPEN:
            self._retries += 1
            if self._retries > 5:
                self.abort()
                return
            self._send_syn()
        elif self in self.net.blocked:
            self.output()  # the guest has no buffers: nothing was lost
        else:
            self.snd_nxt = self.snd_una
            if self.snd_wnd:
                self._retries += 1
                if self._retries > RETRIES:
                    self.abort()
                    return
                self._cwnd = self.mss
                self._recovery.end()
                self.output()
            else:
                self._send(self.snd_una - 1 & MASK, ACK)  # asks for the window (RFC 9293, 3.8.6.1): no loss
        if self._timer.deadline is None:
            self._arm()

    def wait(self, nanoseconds: int) -> None:
        """Stay a while for what the guest may send again."""
        self.state = State.TIME_WAIT
        self.net.loop.after(self._timer, nanoseconds)

    def _send(
        self, sequence: int, flags: int, said: bytes = b"", data: bytes | bytearray = b"", *, scaled: bool = True
    ) -> bool:
        """A segment. False if it carries data or an end and the guest has no room now."""
        window = min(self.window() >> (self.rcv_scale if scaled else 0), 0xFFFF)
        if flags & ACK:
            self._advertised = self.rcv_nxt + (window << (self.rcv_scale if scaled else 0)) & MASK
        (guest, guest_port), (remote, port) = self.guest, self.remote
        words = (port, guest_port, sequence, self.rcv_nxt if flags & ACK else 0, 20 + len(said) << 2, flags, window)
        net = self.net
        mac = net.arp.table.get(guest)
        if data and mac is not None and net.device is not None and net.device.accepts & CSUM:
            segment, offload = left_to_card(words, data, self._sum), LEFT6 if self._six else LEFT
            if len(data) > self.mss:
                kind, start = (GSO_TCPV6, 54) if self._six else (GSO_TCPV4, 34)
                offload = Offload(True, start, 16, kind, self.mss, start + 20)
        else:
            segment, offload = complete(words, said, data, self._sum), None
        if mac is None:
            net.give_ip(remote, guest, TCP, segment)
            return True
        header = ether(mac, net.router_mac(guest), kind_of(guest))
        frame = b"".join((header, ip_header(remote, guest, TCP, len(segment)), segment))
        if data or flags & FIN:
            return net.give_data(frame, offload)
        return net.give(frame)
