"""Networks: what is behind a network card.

A card gives frames to its back end and is given frames (`backend.py`); what cards leave to others, checksums and
segmentation, is `offload.py`. Back ends: `user` (a router in this process), `stream.py` and `datagram.py` (peers over
sockets), `tap.py` (the host's network), `hub.py` (several cards), and `pcap.py`, which writes down what passes.
`spec.py` makes them from what users write. Those with descriptors wait for them in a thread (`loop.py`).
"""
