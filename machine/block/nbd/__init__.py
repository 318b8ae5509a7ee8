"""Network Block Device (NetworkBlockDevice/nbd, doc/proto.md): what server and client share, and the server.

    wire.py       numbers and messages of the protocol
    stream.py     a connection, plain or TLS, that may be read and written by two threads at once
    handshake.py  the server's side of the option haggling
    session.py    one client's requests and replies
    server.py     listening, limits on clients

The client is a protocol of the block layer: protocols/nbd.py.
"""
