"""Machines: what is around a processor.

`memory` is the memory map; `machine`, `device`, `registers`, `lines`, `clock`, `log`, `chardev` and `hostchar` are what
devices are made of; `devices` has them, `boards` puts them together, one a file each; `block` is disks.
"""
