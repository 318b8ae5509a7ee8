"""The native runtime and Python's side of it: CPUs, address spaces, translation, faults, the cache, the worker."""
