"""System calls of Linux that are not served: number -> name, by why. They answer ENOSYS, and are named once.

Numbers are those of linux/include/uapi/asm-generic/unistd.h, as in table.py. docs/support.md has this list.
"""

from __future__ import annotations

UNSERVED: dict[str, dict[int, str]] = {
    "asynchronous input and output": {
        0: "io_setup", 1: "io_destroy", 2: "io_submit", 3: "io_cancel", 4: "io_getevents", 292: "io_pgetevents",
        425: "io_uring_setup", 426: "io_uring_enter", 427: "io_uring_register", 75: "vmsplice",
    },
    "threads, and what only they need": {
        100: "get_robust_list", 449: "futex_waitv",
    },
    "messages, semaphores and shared memory of System V and POSIX": {
        180: "mq_open", 181: "mq_unlink", 182: "mq_timedsend", 183: "mq_timedreceive", 184: "mq_notify",
        185: "mq_getsetattr", 186: "msgget", 187: "msgctl", 188: "msgrcv", 189: "msgsnd", 190: "semget",
        191: "semctl", 192: "semtimedop", 193: "semop", 194: "shmget", 195: "shmctl", 196: "shmat", 197: "shmdt",
    },
    "several messages at once": {243: "recvmmsg", 269: "sendmmsg"},
    "other processes' insides": {
        117: "ptrace", 270: "process_vm_readv", 271: "process_vm_writev", 272: "kcmp", 438: "pidfd_getfd",
        440: "process_madvise", 448: "process_mrelease",
    },
    "namespaces, filters and containers": {
        97: "unshare", 268: "setns", 277: "seccomp", 280: "bpf", 444: "landlock_create_ruleset",
        445: "landlock_add_rule", 446: "landlock_restrict_self",
    },
    "memory by node, key or file": {
        230: "mlockall", 231: "munlockall", 234: "remap_file_pages", 235: "mbind", 236: "get_mempolicy",
        237: "set_mempolicy", 238: "migrate_pages", 239: "move_pages", 282: "userfaultfd", 288: "pkey_mprotect",
        289: "pkey_alloc", 290: "pkey_free", 447: "memfd_secret", 450: "set_mempolicy_home_node",
    },
    "files by handle, and newer ways to open and watch them": {
        262: "fanotify_init", 263: "fanotify_mark", 264: "name_to_handle_at", 265: "open_by_handle_at",
        437: "openat2",
    },
    "keys, measuring, scheduling attributes": {
        217: "add_key", 218: "request_key", 219: "keyctl", 241: "perf_event_open", 274: "sched_setattr",
        275: "sched_getattr",
    },
    "administration": {
        18: "lookup_dcookie", 39: "umount2", 40: "mount", 41: "pivot_root", 42: "nfsservctl", 58: "vhangup",
        60: "quotactl", 89: "acct", 104: "kexec_load", 105: "init_module", 106: "delete_module", 116: "syslog",
        142: "reboot", 162: "setdomainname", 170: "settimeofday", 224: "swapon", 225: "swapoff", 273: "finit_module",
        294: "kexec_file_load", 428: "open_tree", 429: "move_mount", 430: "fsopen", 431: "fsconfig", 432: "fsmount",
        433: "fspick", 442: "mount_setattr", 443: "quotactl_fd",
    },
}  # fmt: skip


def name_of(number: int) -> str:
    """For messages: the call's name, with its number."""
    for calls in UNSERVED.values():
        if number in calls:
            return f"{calls[number]} ({number})"
    return str(number)
