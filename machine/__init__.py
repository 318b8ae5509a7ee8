"""Machines: what is around a processor: the memory map (`memory`) and the disks (`block`)."""
