"""Machines: what is around a processor. So far the disks (`block`)."""
