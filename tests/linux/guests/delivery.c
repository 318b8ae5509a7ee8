/* Signals that somebody sends: who sent them, masks, what is pending, stacks, and what calls make of them. */
#include "case.h"
#include <sys/signalfd.h>
#include <sys/socket.h>

#define FUTEX_WAIT 0

static volatile int count, last;

static const char *who(pid_t pid)
{
    return pid == getpid() ? "self" : pid == 0 ? "nobody" : "another";
}

static void tell(int signal, siginfo_t *info, void *context)
{
    (void)context;
    count++;
    last = signal;
    printf("signal %d code %d errno %d", signal, info->si_code, info->si_errno);
    if (info->si_code == SI_TIMER)
        printf(" value %d", info->si_value.sival_int);
    else
        printf(" from %s user %d", who(info->si_pid), info->si_uid == getuid());
    if (info->si_code == SI_QUEUE)
        printf(" value %lx", (unsigned long)info->si_value.sival_ptr);
    if (signal == SIGCHLD && info->si_code > 0)
        printf(" status %d", info->si_status);
    printf(" mask %lx\n", get_mask());
}

static void address(int signal, siginfo_t *info, void *context)
{
    (void)context;
    printf("signal %d code %d address %p\n", signal, info->si_code, info->si_addr);
}

static void quiet(int signal, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    count++;
    last = signal;
}

static void queue(pid_t pid, int signal, unsigned long value)
{
    union sigval v = {.sival_ptr = (void *)value};
    if (sigqueue(pid, signal, v))
        printf("sigqueue %d\n", errno);
}

static void senders(void)
{
    handle(SIGUSR1, tell, 0, 0);
    handle(SIGRTMIN, tell, 0, bit(SIGUSR2));
    handle(SIGCHLD, tell, 0, 0);
    kill(getpid(), SIGUSR1);
    raise(SIGUSR1);
    queue(getpid(), SIGUSR1, 0x123456789a);
    queue(getpid(), SIGRTMIN, 7);
    syscall(SYS_tgkill, getpid(), getpid(), SIGRTMIN);
    siginfo_t info = {.si_code = -77, .si_pid = getpid(), .si_uid = getuid()};
    printf("%ld\n", syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &info));
    printf("%ld\n", syscall(SYS_rt_tgsigqueueinfo, getpid(), getpid(), SIGUSR1, &info));
    pid_t child = fork();
    if (!child)
        _exit(3);
    reap(child);
    child = fork();
    if (!child) {
        kill(getpid(), SIGKILL);
        pause();
    }
    reap(child);
    int result = kill(getpid(), 65);
    printf("%d %d\n", result, errno);
    printf("%d\n", kill(getpid(), 0));
}

/* A signal of those that faults make, from somebody. */
static void sent_faults(void)
{
    handle(SIGSEGV, tell, 0, 0);
    kill(getpid(), SIGSEGV);
    queue(getpid(), SIGSEGV, 5);
    const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (unsigned i = 0; i < 5; i++) { /* as if it were a fault: what handlers of crashes pass on */
        siginfo_t info = {.si_code = 1, .si_addr = (void *)0x1234};
        handle(numbers[i], address, 0, 0);
        printf("%ld\n", syscall(SYS_rt_sigqueueinfo, getpid(), numbers[i], &info));
        set_mask(SIG_BLOCK, bit(numbers[i]));
        for (info.si_code = 2; info.si_code < 4; info.si_code++)
            printf("%ld\n", syscall(SYS_rt_tgsigqueueinfo, getpid(), getpid(), numbers[i], &info));
        printf("pending %lx\n", pending());
        set_mask(SIG_UNBLOCK, bit(numbers[i]));
        pid_t child = fork();
        if (!child) {
            signal(numbers[i], SIG_DFL);
            _exit((int)syscall(SYS_rt_tgsigqueueinfo, getpid(), getpid(), numbers[i], &info));
        }
        int status;
        waitpid(child, &status, 0);
        printf("child %d\n", status & 0x7f);
    }
}

/* Standard signals do not queue, real-time signals do; low numbers come first, so their handlers run last. */
static void order(void)
{
    const int numbers[] = {SIGRTMIN + 5, SIGUSR2, SIGRTMIN, SIGUSR1, SIGSEGV, SIGHUP};
    unsigned long mask = 0;
    for (unsigned i = 0; i < 6; i++) {
        handle(numbers[i], tell, 0, 0);
        mask |= bit(numbers[i]);
    }
    set_mask(SIG_BLOCK, mask);
    for (int round = 0; round < 3; round++)
        for (unsigned i = 0; i < 6; i++)
            queue(getpid(), numbers[i], (unsigned long)round);
    printf("pending %lx mask %lx count %d\n", pending(), get_mask(), count);
    set_mask(SIG_UNBLOCK, mask);
    printf("pending %lx count %d\n", pending(), count);
}

static void inside(int signal, siginfo_t *info, void *where)
{
    ucontext_t *context = where;
    (void)info;
    printf("%d mask %lx saved %lx\n", signal, get_mask(), *(unsigned long *)&context->uc_sigmask);
    if (signal == SIGUSR1) {
        kill(getpid(), SIGUSR2);
        kill(getpid(), SIGHUP);
        puts("sent");
    }
    if (signal == SIGHUP)
        *(unsigned long *)&context->uc_sigmask |= bit(SIGALRM);
    if (signal == SIGTERM && count++ < 3)
        raise(SIGTERM);
}

static void masks(void)
{
    handle(SIGUSR1, inside, 0, bit(SIGUSR2) | bit(SIGILL));
    handle(SIGUSR2, inside, 0, 0);
    handle(SIGHUP, inside, 0, 0);
    handle(SIGTERM, inside, SA_NODEFER, 0);
    kill(getpid(), SIGUSR1);
    printf("mask %lx\n", get_mask());
    raise(SIGTERM);
    set_mask(SIG_SETMASK, 0x7fffffff);
    printf("mask %lx\n", get_mask());
}

static void actions(void)
{
    struct sigaction old;
    handle(SIGUSR1, quiet, SA_RESETHAND | SA_RESTART | 0x400 | 0x100, bit(SIGHUP));
    sigaction(SIGUSR1, NULL, &old);
    printf("flags %x mask %lx\n", old.sa_flags & 0xfbffffff, *(unsigned long *)&old.sa_mask);
    raise(SIGUSR1);
    sigaction(SIGUSR1, NULL, &old);
    printf("default %d flags %x mask %lx count %d\n", old.sa_handler == SIG_DFL, old.sa_flags & 0xfbffffff,
           *(unsigned long *)&old.sa_mask, count);
    static const int numbers[] = {0, SIGKILL, SIGSTOP, 32, 33, 64, 65, -1};
    for (unsigned i = 0; i < 8; i++) {
        unsigned long action[4] = {1, 0, 0, 0}, before[4] = {5, 5, 5, 5};
        long set = syscall(SYS_rt_sigaction, numbers[i], action, before, 8);
        int first = errno;
        long get = syscall(SYS_rt_sigaction, numbers[i], NULL, before, 8);
        printf("%d: %ld %d, %ld %d, %ld\n", numbers[i], set, set ? first : 0, get, get ? errno : 0, (long)before[0]);
    }
}

/* Ignoring a signal throws away what is pending of it. */
static void dropped(void)
{
    const int numbers[] = {SIGUSR1, SIGSEGV, SIGRTMIN, SIGCHLD};
    for (unsigned i = 0; i < 4; i++) {
        handle(numbers[i], quiet, 0, 0);
        set_mask(SIG_BLOCK, bit(numbers[i]));
        kill(getpid(), numbers[i]);
        int before = (pending() & bit(numbers[i])) != 0;
        signal(numbers[i], numbers[i] == SIGCHLD ? SIG_DFL : SIG_IGN);
        printf("%d: %d %d\n", numbers[i], before, (pending() & bit(numbers[i])) != 0);
        handle(numbers[i], quiet, 0, 0);
        set_mask(SIG_UNBLOCK, bit(numbers[i]));
    }
    printf("count %d\n", count);
}

static stack_t other;

static void on_stack(int signal, siginfo_t *info, void *where)
{
    char here;
    stack_t now, wanted = {.ss_flags = SS_DISABLE};
    (void)info;
    sigaltstack(NULL, &now);
    printf("%d inside %d flags %x saved %x", signal, &here >= (char *)other.ss_sp &&
           &here < (char *)other.ss_sp + other.ss_size, now.ss_flags, ((ucontext_t *)where)->uc_stack.ss_flags);
    int result = sigaltstack(&wanted, NULL);
    printf(" change %d %d\n", result, result ? errno : 0);
    if (count++ < 1)
        raise(signal);
}

static void stacks(void)
{
    other = (stack_t){.ss_sp = malloc(65536), .ss_size = 65536};
    stack_t now, bad = {.ss_sp = other.ss_sp, .ss_size = 1000}, odd = {.ss_flags = 77, .ss_size = 65536};
    printf("%d ", sigaltstack(&bad, NULL));
    printf("%d ", errno);
    printf("%d ", sigaltstack(&odd, NULL));
    printf("%d\n", errno);
    sigaltstack(NULL, &now);
    printf("flags %x\n", now.ss_flags);
    sigaltstack(&other, NULL);
    handle(SIGUSR1, on_stack, SA_ONSTACK | SA_NODEFER, 0);
    handle(SIGUSR2, on_stack, SA_NODEFER, 0);
    raise(SIGUSR1);
    sigaltstack(NULL, &now);
    printf("flags %x same %d\n", now.ss_flags, now.ss_sp == other.ss_sp);
    count = 0;
    raise(SIGUSR2);
    other.ss_flags = 1 << 31; /* SS_AUTODISARM */
    count = 1;
    sigaltstack(&other, NULL);
    raise(SIGUSR1);
    sigaltstack(NULL, &now);
    printf("flags %x same %d\n", now.ss_flags, now.ss_sp == other.ss_sp);
}

static void suspend(void)
{
    handle(SIGUSR1, tell, 0, bit(SIGHUP));
    handle(SIGUSR2, tell, 0, 0);
    handle(SIGSEGV, tell, 0, 0);
    set_mask(SIG_SETMASK, bit(SIGUSR1) | bit(SIGUSR2) | bit(SIGSEGV) | bit(SIGINT));
    unsigned long open = bit(SIGTERM) | bit(SIGUSR2);
    kill(getpid(), SIGUSR1);
    long result = syscall(SYS_rt_sigsuspend, &open, 8);
    printf("%ld %d mask %lx\n", result, errno, get_mask());
    kill(getpid(), SIGSEGV);
    result = syscall(SYS_rt_sigsuspend, &open, 8);
    printf("%ld %d mask %lx\n", result, errno, get_mask());
    pid_t child = later(SIGUSR1, 50);
    result = syscall(SYS_rt_sigsuspend, &open, 8);
    printf("%ld %d mask %lx\n", result, errno, get_mask());
    reap(child);
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR2);
    open = 0;
    result = syscall(SYS_rt_sigsuspend, &open, 8);
    printf("%ld %d mask %lx pending %lx\n", result, errno, get_mask(), pending());
    kill(getpid(), SIGUSR1);
    struct timespec none = {0, 0};
    result = syscall(SYS_ppoll, NULL, 0, &none, &open, 8);
    printf("%ld mask %lx pending %lx\n", result, get_mask(), pending());
    struct timespec some = {0, 50000000};
    result = syscall(SYS_ppoll, NULL, 0, &some, &open, 8);
    printf("%ld mask %lx pending %lx\n", result, get_mask(), pending());
}

static void waiting(void)
{
    unsigned long set = bit(SIGUSR1) | bit(SIGRTMIN) | bit(SIGFPE);
    struct timespec none = {0, 0}, some = {5, 0};
    siginfo_t info;
    handle(SIGUSR2, quiet, SA_RESTART, 0);
    set_mask(SIG_BLOCK, set);
    queue(getpid(), SIGRTMIN, 3);
    queue(getpid(), SIGFPE, 4);
    queue(getpid(), SIGUSR1, 5);
    queue(getpid(), SIGRTMIN, 6);
    for (int i = 0; i < 4; i++) {
        memset(&info, 0, sizeof info);
        long found = syscall(SYS_rt_sigtimedwait, &set, &info, &none, 8);
        printf("%ld: %d code %d value %d\n", found, info.si_signo, info.si_code, info.si_value.sival_int);
    }
    long result = syscall(SYS_rt_sigtimedwait, &set, &info, &none, 8);
    printf("%ld %d\n", result, errno);
    pid_t child = later(SIGUSR2, 50);
    result = syscall(SYS_rt_sigtimedwait, &set, &info, &some, 8);
    printf("%ld %d\n", result, errno);
    reap(child);
    child = later(SIGFPE, 50);
    printf("%ld\n", syscall(SYS_rt_sigtimedwait, &set, NULL, &some, 8));
    reap(child);
    int fd = signalfd(-1, (sigset_t *)&set, 0);
    queue(getpid(), SIGUSR1, 9);
    struct signalfd_siginfo read_info;
    printf("%zd: ", read(fd, &read_info, sizeof read_info));
    printf("%d code %d value %d\n", read_info.ssi_signo, read_info.ssi_code, read_info.ssi_int);
    printf("count %d\n", count);
}

/* What calls do when a handler has run, with and without SA_RESTART. */
static void interrupted(const char *name, int flags, long (*call)(void))
{
    handle(SIGUSR1, quiet, flags, 0);
    count = 0;
    pid_t child = later(SIGUSR1, 150);
    errno = 0;
    long result = call();
    printf("%s %s: %ld errno %d count %d\n", name, flags ? "restarts" : "stops", result, errno, count);
    reap(child);
}

static int ends[2];

static long read_pipe(void)
{
    char byte;
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        pause_for(600);
        (void)!write(ends[1], "x", 1);
        _exit(0);
    }
    long result = read(ends[0], &byte, 1);
    int error = errno;
    if (result < 0)
        while (read(ends[0], &byte, 1) != 1)
            ;
    reap(child);
    errno = result < 0 ? error : 0;
    return result;
}

static long wait_child(void)
{
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        pause_for(600);
        _exit(0);
    }
    long result = waitpid(child, NULL, 0);
    int error = errno;
    if (result < 0)
        reap(child);
    errno = result < 0 ? error : 0;
    return result < 0 ? -1 : result == child;
}

static long sleep_long(void)
{
    struct timespec some = {5, 0}, left = {9, 9};
    long result = nanosleep(&some, &left);
    printf("left %d\n", left.tv_sec < 5 && left.tv_nsec != 9);
    return result;
}

static long poll_long(void)
{
    return poll(NULL, 0, 5000);
}

static long futex_long(void)
{
    static int word;
    struct timespec some = {5, 0};
    return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &some, NULL, 0);
}

static long receive(void)
{
    struct timeval some = {5, 0};
    char byte;
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &some, sizeof some);
    long result = recv(pair[0], &byte, 1, 0);
    int error = errno;
    close(pair[0]);
    close(pair[1]);
    errno = error;
    return result;
}

static void restarts(void)
{
    (void)!pipe(ends);
    for (int flags = 0; flags <= SA_RESTART; flags += SA_RESTART) {
        interrupted("read", flags, read_pipe);
        interrupted("wait4", flags, wait_child);
        interrupted("nanosleep", flags, sleep_long);
        interrupted("ppoll", flags, poll_long);
        interrupted("futex", flags, futex_long);
        interrupted("recvfrom", flags, receive);
    }
}

CASES({"senders", senders}, {"sent_faults", sent_faults}, {"order", order}, {"masks", masks}, {"actions", actions}, {"dropped", dropped},
      {"stacks", stacks}, {"suspend", suspend}, {"waiting", waiting}, {"restarts", restarts})
