"""Dragoman against qemu-aarch64-static, in pairs on one machine: `make bench`, or `python -m bench --help`.

Every figure is the median of several rounds; within a round the two run one right after the other, so that what else
the machine does meets both. Only commands are measured, as a user would type them: nothing here imports dbt.
"""
