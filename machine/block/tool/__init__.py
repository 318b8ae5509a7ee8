"""The commands `dragoman img` and `dragoman nbd`, on top of the block layer's interfaces only.

    parser.py      the command line: every command with its options, and the table of functions that do them
    images.py      from words of the command line to open images; sizes for people
    extents.py     what is where, through a chain of backing files
    copying.py     the pipelined copy that convert, dd, commit and rebase share
    aside.py       targets that are written beside their name and renamed when they are whole
    show.py        info, check, repair, map, measure
    making.py      create, resize, snapshot
    converting.py  convert, dd
    comparing.py   compare
    chains.py      commit, rebase
    benching.py    bench
    serving.py     nbd
    progress.py    progress bars

A function that does a command takes the parsed options and returns an exit status. What a format can do it gets from
the format's class: nothing here knows any by name, but that raw has no header.
"""
