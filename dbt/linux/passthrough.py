"""System calls whose arguments and structs mean the same to the guest's kernel and to the host's.

ROWS is the one list; table.py serves these calls from it, and the native runtime serialises it. A row is

    (guest number, name, host number, fds, kind, pointers)

`fds` has bit i set where argument i is a descriptor; `kind` is WAITS for calls that may block and are interrupted by
signals, MAKES for those that give a descriptor, which may not be one of those that we need ourselves; `pointers` has
for each pointer argument (argument, unit, count, null): it points to `unit` bytes times the value of argument `count`
(-1: one unit), and may be 0 where null is 1. Arguments that are none of these are passed on. WAITS and MAKES are
constants of dbt/engine/layout.py.
Nothing is here that holds further pointers, names, or that could reach the translator's own descriptors and memory.

Layouts that agree were checked with compiled programs of both sides (tests/linux/test_layouts.py): timespec, timeval,
itimerspec, rusage, siginfo, rlimit64, sysinfo, statfs, utsname, sigset, sockaddr, pollfd, tms, timex.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Pointer = tuple[int, int, int, int]
    Row = tuple[int, str, int, int, int, tuple[Pointer, ...]]

_NONE: tuple[Pointer, ...] = ()

ROWS: tuple[Row, ...] = (
    # files
    (63, "read", 0, 1, 1, ((1, 1, 2, 0),)),
    (64, "write", 1, 1, 1, ((1, 1, 2, 0),)),
    (67, "pread64", 17, 1, 1, ((1, 1, 2, 0),)),
    (68, "pwrite64", 18, 1, 1, ((1, 1, 2, 0),)),
    (62, "lseek", 8, 1, 0, _NONE),
    (23, "dup", 32, 1, 2, _NONE),
    (32, "flock", 73, 1, 1, _NONE),
    (44, "fstatfs", 138, 1, 0, ((1, 120, -1, 0),)),
    (46, "ftruncate", 77, 1, 0, _NONE),
    (47, "fallocate", 285, 1, 1, _NONE),
    (50, "fchdir", 81, 1, 0, _NONE),
    (52, "fchmod", 91, 1, 0, _NONE),
    (55, "fchown", 93, 1, 0, _NONE),
    (71, "sendfile", 40, 3, 1, ((2, 8, -1, 1),)),
    (76, "splice", 275, 5, 1, ((1, 8, -1, 1), (3, 8, -1, 1))),
    (77, "tee", 276, 3, 1, _NONE),
    (81, "sync", 162, 0, 0, _NONE),
    (82, "fsync", 74, 1, 0, _NONE),
    (83, "fdatasync", 75, 1, 0, _NONE),
    (84, "sync_file_range", 277, 1, 0, _NONE),
    (213, "readahead", 187, 1, 0, _NONE),
    (223, "fadvise64", 221, 1, 0, _NONE),
    (267, "syncfs", 306, 1, 0, _NONE),
    (285, "copy_file_range", 326, 5, 1, ((1, 8, -1, 1), (3, 8, -1, 1))),
    (19, "eventfd2", 290, 0, 2, _NONE),
    (20, "epoll_create1", 291, 0, 2, _NONE),
    (26, "inotify_init1", 294, 0, 2, _NONE),
    (28, "inotify_rm_watch", 255, 1, 0, _NONE),
    (166, "umask", 95, 0, 0, _NONE),
    # identity and process groups
    (172, "getpid", 39, 0, 0, _NONE),
    (173, "getppid", 110, 0, 0, _NONE),
    (178, "gettid", 186, 0, 0, _NONE),
    (174, "getuid", 102, 0, 0, _NONE),
    (175, "geteuid", 107, 0, 0, _NONE),
    (176, "getgid", 104, 0, 0, _NONE),
    (177, "getegid", 108, 0, 0, _NONE),
    (143, "setregid", 114, 0, 0, _NONE),
    (144, "setgid", 106, 0, 0, _NONE),
    (145, "setreuid", 113, 0, 0, _NONE),
    (146, "setuid", 105, 0, 0, _NONE),
    (147, "setresuid", 117, 0, 0, _NONE),
    (148, "getresuid", 118, 0, 0, ((0, 4, -1, 0), (1, 4, -1, 0), (2, 4, -1, 0))),
    (149, "setresgid", 119, 0, 0, _NONE),
    (150, "getresgid", 120, 0, 0, ((0, 4, -1, 0), (1, 4, -1, 0), (2, 4, -1, 0))),
    (151, "setfsuid", 122, 0, 0, _NONE),
    (152, "setfsgid", 123, 0, 0, _NONE),
    (154, "setpgid", 109, 0, 0, _NONE),
    (155, "getpgid", 121, 0, 0, _NONE),
    (156, "getsid", 124, 0, 0, _NONE),
    (157, "setsid", 112, 0, 0, _NONE),
    (158, "getgroups", 115, 0, 0, ((1, 4, 0, 1),)),
    (159, "setgroups", 116, 0, 0, ((1, 4, 0, 1),)),
    (90, "capget", 125, 0, 0, ((0, 8, -1, 0), (1, 24, -1, 1))),
    (91, "capset", 126, 0, 0, ((0, 8, -1, 0), (1, 24, -1, 0))),
    # processes
    (129, "kill", 62, 0, 0, _NONE),
    (130, "tkill", 200, 0, 0, _NONE),
    (131, "tgkill", 234, 0, 0, _NONE),
    (95, "waitid", 247, 0, 1, ((2, 128, -1, 1), (4, 144, -1, 1))),
    (260, "wait4", 61, 0, 1, ((1, 4, -1, 1), (3, 144, -1, 1))),
    (165, "getrusage", 98, 0, 0, ((1, 144, -1, 0),)),
    (153, "times", 100, 0, 0, ((0, 32, -1, 1),)),
    (140, "setpriority", 141, 0, 0, _NONE),
    (141, "getpriority", 140, 0, 0, _NONE),
    (30, "ioprio_set", 251, 0, 0, _NONE),
    (31, "ioprio_get", 252, 0, 0, _NONE),
    (118, "sched_setparam", 142, 0, 0, ((1, 4, -1, 0),)),
    (119, "sched_setscheduler", 144, 0, 0, ((2, 4, -1, 0),)),
    (120, "sched_getscheduler", 145, 0, 0, _NONE),
    (121, "sched_getparam", 143, 0, 0, ((1, 4, -1, 0),)),
    (122, "sched_setaffinity", 203, 0, 0, ((2, 1, 1, 0),)),
    (123, "sched_getaffinity", 204, 0, 0, ((2, 1, 1, 0),)),
    (124, "sched_yield", 24, 0, 0, _NONE),
    (125, "sched_get_priority_max", 146, 0, 0, _NONE),
    (126, "sched_get_priority_min", 147, 0, 0, _NONE),
    (127, "sched_rr_get_interval", 148, 0, 0, ((1, 16, -1, 0),)),
    (168, "getcpu", 309, 0, 0, ((0, 4, -1, 1), (1, 4, -1, 1))),
    (179, "sysinfo", 99, 0, 0, ((0, 112, -1, 0),)),
    (278, "getrandom", 318, 0, 1, ((0, 1, 1, 0),)),
    (283, "membarrier", 324, 0, 0, _NONE),
    (434, "pidfd_open", 434, 0, 2, _NONE),
    (424, "pidfd_send_signal", 424, 1, 0, ((2, 128, -1, 1),)),
    # time
    (101, "nanosleep", 35, 0, 1, ((0, 16, -1, 0), (1, 16, -1, 1))),
    (115, "clock_nanosleep", 230, 0, 1, ((2, 16, -1, 0), (3, 16, -1, 1))),
    (112, "clock_settime", 227, 0, 0, ((1, 16, -1, 0),)),
    (113, "clock_gettime", 228, 0, 0, ((1, 16, -1, 0),)),
    (114, "clock_getres", 229, 0, 0, ((1, 16, -1, 1),)),
    (169, "gettimeofday", 96, 0, 0, ((0, 16, -1, 1), (1, 8, -1, 1))),
    (171, "adjtimex", 159, 0, 0, ((0, 208, -1, 0),)),
    (266, "clock_adjtime", 305, 0, 0, ((1, 208, -1, 0),)),
    (102, "getitimer", 36, 0, 0, ((1, 32, -1, 0),)),
    (103, "setitimer", 38, 0, 0, ((1, 32, -1, 1), (2, 32, -1, 1))),
    (108, "timer_gettime", 224, 0, 0, ((1, 32, -1, 0),)),
    (109, "timer_getoverrun", 225, 0, 0, _NONE),
    (110, "timer_settime", 223, 0, 0, ((2, 32, -1, 0), (3, 32, -1, 1))),
    (85, "timerfd_create", 283, 0, 2, _NONE),
    (86, "timerfd_settime", 286, 1, 0, ((2, 32, -1, 0), (3, 32, -1, 1))),
    (87, "timerfd_gettime", 287, 1, 0, ((1, 32, -1, 0),)),
    # sockets
    (198, "socket", 41, 0, 2, _NONE),
    (200, "bind", 49, 1, 0, ((1, 1, 2, 0),)),
    (201, "listen", 50, 1, 0, _NONE),
    (203, "connect", 42, 1, 1, ((1, 1, 2, 0),)),
    (206, "sendto", 44, 1, 1, ((1, 1, 2, 0), (4, 1, 5, 1))),
    (210, "shutdown", 48, 1, 0, _NONE),
)
