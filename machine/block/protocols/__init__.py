"""Where bytes are kept: one module for each protocol, found by its name (registry.py)."""
