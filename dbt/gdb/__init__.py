"""A stub of gdb's remote protocol (gdb manual, appendix E): `dragoman run -g PORT`, and `serve` of the library.

packets.py frames, registers.py describes the guest, target.py runs it and kicks.py makes it stop, server.py answers.
Nothing of it is imported until somebody debugs.
"""
