"""The user-mode network: what a guest takes for a router is this process, with the rights of any program.

`net.py` is the back end: options, what comes from the guest and goes to it. `packets.py` makes and reads headers. Each
protocol is a file: `arp.py`, `ndp.py`, `dhcp.py`, `icmp.py`, `udp.py`, `tcp.py` (with `endpoint.py`, the guest side of
one connection), `fragments.py`. `forward.py` lets the host in, `hosts.py` says which address of the host is meant.

Everything happens under the machine's lock and nothing waits: sockets do not block, and one thread (`../loop.py`) waits
for all of them. Tables are bounded, and what a guest sends is checked before it means anything.
"""
