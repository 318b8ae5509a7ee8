"""What ACPI (specification 6.4) says of a board, from the same list as its map.

tables.py: the tables of fixed form; aml.py: a writer of AML; devices.py: what both boards' DSDT have; pc.py, virt.py:
a board's tables; loader.py: how firmware gets them through fw_cfg, and a text for people.
"""
