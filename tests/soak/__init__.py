"""Random programs and random pages on all engines, many of them, in child processes: `python -m tests.soak --help`.

`programs.py` makes a program from a number; `machines.py` and `outside.py` run it on our engines and on Unicorn;
`compare.py` says what differs, `shrink.py` makes it small, `child.py` does so for many numbers, and `parent.py` watches
the children: what crashes or hangs one is blamed on the number it was at.
"""
