/* What the guests of tests/linux/test_signals_guests.py share: each is a table of cases that print what they see. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

typedef void (*handler_t)(int, siginfo_t *, void *);

struct test {
    const char *name;
    void (*run)(void);
};

/* sa_mask: a mask of signals, bit number - 1. */
static inline void handle(int signal, handler_t handler, int flags, unsigned long mask)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handler;
    action.sa_flags = flags | SA_SIGINFO;
    memcpy(&action.sa_mask, &mask, sizeof mask);
    if (sigaction(signal, &action, NULL))
        printf("sigaction %d: %d\n", signal, errno);
}

static inline unsigned long bit(int signal)
{
    return 1UL << (signal - 1);
}

/* The kernel's own mask and pending set: the C library hides signals 32 and 33. */
static inline unsigned long set_mask(int how, unsigned long mask)
{
    unsigned long old = 0;
    syscall(SYS_rt_sigprocmask, how, &mask, &old, 8);
    return old;
}

static inline unsigned long get_mask(void)
{
    unsigned long old = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &old, 8);
    return old;
}

static inline unsigned long pending(void)
{
    unsigned long found = 0;
    syscall(SYS_rt_sigpending, &found, 8);
    return found;
}

static inline long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline void pause_for(long ms)
{
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) && errno == EINTR)
        ;
}

/* A child that sends a signal to its parent after some time, and ends. */
static inline int later(int signal, long ms)
{
    pid_t parent = getpid();
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        pause_for(ms);
        kill(parent, signal);
        _exit(0);
    }
    return child;
}

static inline void reap(pid_t child)
{
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* Run the named cases, or all, each in a child of its own, and say how it ended; `only NAME` runs one in this process. */
static inline int run_cases(const struct test *cases, int n, int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < n; i++) {
        int wanted = argc < 2;
        for (int k = 1; k < argc; k++)
            wanted |= !strcmp(argv[k], cases[i].name);
        if (!wanted)
            continue;
        if (argc > 2 && !strcmp(argv[1], "only")) {
            cases[i].run();
            return 0;
        }
        printf("== %s\n", cases[i].name);
        int status;
        pid_t child = fork();
        if (!child) {
            cases[i].run();
            exit(0);
        }
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status))
            printf("killed by %d\n", WTERMSIG(status));
        else if (WEXITSTATUS(status))
            printf("exit %d\n", WEXITSTATUS(status));
    }
    return 0;
}

#define CASES(...)                                                                                                     \
    int main(int argc, char **argv)                                                                                    \
    {                                                                                                                  \
        static const struct test cases[] = {__VA_ARGS__};                                                              \
        return run_cases(cases, sizeof cases / sizeof *cases, argc, argv);                                             \
    }
