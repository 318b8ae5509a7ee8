"""What tools are made of: watchpoints and I/O on protected pages, hooks, snapshots.

The library (dbt/library) and the gdb stub (dbt/gdb) sit on top. Nothing here is imported, and nothing costs time, until
it is used.
"""
