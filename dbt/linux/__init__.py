"""The Linux personality: ELF loading, system calls and signals of AArch64 programs on an x86-64 Linux host.

    elf.py loader.py        the executable, its image, its first stack
    process.py              one guest process: run loop, exits, how it ends
    table.py passthrough.py which function serves which call; the calls that need no function
    paths.py procfs.py      -L ROOT and the guest's view of /proc/self
    signals.py sigframe.py  dispositions, mask, delivery; the frame on the guest's stack
    strace.py               printing calls
    everything else         the calls, one file a topic, imported at the first call

A system call is a function (process, a0 … a5) -> int that returns what the kernel would: a result or -errno. Arguments
are unsigned 64-bit. It may raise GuestFault (EFAULT) or OSError (its errno). Pointers go to the host only through
Process.pointer, which checks them; a struct is handed over as it is only where both layouts agree.
"""
