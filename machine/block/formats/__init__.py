"""How disks are laid out: one module or package for each format, found by its name (registry.py)."""
