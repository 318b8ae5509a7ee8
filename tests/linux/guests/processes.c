/* Signals and processes: default actions, stopping, fork, exec, timers, and a busy program that is interrupted. */
#include "case.h"

static volatile int count;

static void quiet(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
    count++;
}

static void outcome(const char *name, int number, pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, WUNTRACED) < 0 && errno == EINTR)
        ;
    printf("%s %d: ", name, number);
    if (WIFSTOPPED(status)) {
        printf("stopped by %d, ", WSTOPSIG(status));
        kill(child, SIGCONT);
        waitpid(child, &status, 0);
    }
    if (WIFSIGNALED(status))
        printf("killed by %d\n", WTERMSIG(status));
    else
        printf("exit %d\n", WEXITSTATUS(status));
}

static void defaults(void)
{
    for (int number = 1; number <= 64; number++) {
        pid_t child = fork();
        if (!child) {
            setpgid(0, 0);
            kill(getpid(), number);
            _exit(7);
        }
        outcome("default", number, child);
    }
}

static void go_on(int signal, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    count++;
    printf("handler of %d\n", signal);
}

static void stops(void)
{
    int ready[2];
    char byte;
    (void)!pipe(ready);
    pid_t child = fork();
    if (!child) {
        handle(SIGCONT, go_on, 0, 0);
        kill(getpid(), SIGSTOP);
        printf("count %d\n", count);
        handle(SIGTSTP, go_on, 0, 0);
        kill(getpid(), SIGTSTP);
        signal(SIGTSTP, SIG_IGN);
        kill(getpid(), SIGTSTP);
        struct timespec some = {0, 300000000}, left = {0, 0};
        long start = milliseconds();
        signal(SIGCONT, SIG_DFL);
        (void)!write(ready[1], "x", 1);
        int result = nanosleep(&some, &left); /* the parent stops and continues it meanwhile */
        printf("slept %d %d\n", result, milliseconds() - start >= 290);
        _exit(5);
    }
    int status;
    waitpid(child, &status, WUNTRACED);
    printf("stopped %d\n", WIFSTOPPED(status));
    kill(child, SIGCONT);
    (void)!read(ready[0], &byte, 1);
    pause_for(50);
    kill(child, SIGSTOP);
    waitpid(child, &status, WUNTRACED);
    printf("stopped %d\n", WIFSTOPPED(status));
    kill(child, SIGCONT);
    waitpid(child, &status, WCONTINUED);
    printf("continued %d\n", WIFCONTINUED(status));
    outcome("child", 0, child);
}

static void child_told(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    printf("code %d status %d\n", info->si_code, info->si_status);
}

static void children(void)
{
    for (int flags = 0; flags <= SA_NOCLDSTOP; flags += SA_NOCLDSTOP) {
        handle(SIGCHLD, child_told, flags, 0);
        pid_t child = fork();
        if (!child) {
            kill(getpid(), SIGSTOP);
            pause_for(100); /* or the end would take the place of going on, which is not handled yet */
            _exit(9);
        }
        int status;
        while (waitpid(child, &status, WUNTRACED) < 0)
            ;
        kill(child, SIGCONT);
        reap(child);
    }
    handle(SIGCHLD, child_told, SA_NOCLDWAIT, 0);
    pid_t child = fork();
    if (!child)
        _exit(1);
    while (waitpid(child, NULL, 0) > 0 || errno == EINTR)
        ;
    printf("%d\n", errno == ECHILD);
}

static void forks(void)
{
    stack_t other = {.ss_sp = malloc(65536), .ss_size = 65536}, now;
    sigaltstack(&other, NULL);
    handle(SIGUSR1, quiet, 0, 0);
    set_mask(SIG_SETMASK, bit(SIGUSR1) | bit(SIGSEGV) | bit(SIGALRM));
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGSEGV);
    struct itimerval soon = {{0, 0}, {0, 50000}};
    setitimer(ITIMER_REAL, &soon, NULL);
    pid_t child = fork();
    if (!child) {
        pause_for(100);
        sigaltstack(NULL, &now);
        printf("child pending %lx mask %lx stack %d\n", pending(), get_mask(), now.ss_sp == other.ss_sp);
        _exit(0);
    }
    reap(child);
    printf("parent pending %lx\n", pending());
    set_mask(SIG_UNBLOCK, bit(SIGUSR1));
    printf("count %d\n", count);
    volatile int mine = 1; /* a child that is waited for has memory of its own all the same, unless it asks for ours */
    child = (pid_t)syscall(SYS_clone, CLONE_VFORK | CLONE_PARENT_SETTID | SIGCHLD, 0, 16, 0, 0);
    if (!child) {
        mine = 2;
        _exit(0);
    }
    reap(child);
    printf("mine %d\n", mine);
}

/* What a program finds at its start, and leaves to the next. */
static void start(void)
{
    printf("mask %lx pending %lx ignored", get_mask(), pending());
    for (int number = 1; number <= 64; number++) {
        unsigned long action[4] = {0};
        syscall(SYS_rt_sigaction, number, NULL, action, 8);
        if (action[0] == 1)
            printf(" %d flags %lx mask %lx", number, action[1] & 0xfbffffff, action[3]);
        else if (action[0])
            printf(" %d has a handler", number);
    }
    stack_t now;
    struct itimerval left;
    sigaltstack(NULL, &now);
    getitimer(ITIMER_REAL, &left);
    printf(" stack %x timer %d", now.ss_flags, left.it_value.tv_sec > 0);
    struct itimerspec setting;
    printf(" timers %d\n", !timer_gettime(0, &setting));
}

static void execs(void)
{
    static char other[65536];
    stack_t stack = {.ss_sp = other, .ss_size = sizeof other};
    sigaltstack(&stack, NULL);
    handle(SIGUSR1, quiet, 0, 0);
    struct sigaction ignore = {.sa_handler = SIG_IGN, .sa_flags = SA_NOCLDWAIT};
    sigaddset(&ignore.sa_mask, SIGHUP);
    sigaction(SIGCHLD, &ignore, NULL);
    sigaction(SIGSEGV, &ignore, NULL);
    set_mask(SIG_SETMASK, bit(SIGUSR1) | bit(SIGBUS) | bit(SIGRTMIN));
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGBUS);
    kill(getpid(), SIGRTMIN);
    struct itimerval soon = {{0, 0}, {100, 0}};
    setitimer(ITIMER_REAL, &soon, NULL);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    char *words[] = {"program", "only", "start", NULL};
    execv("/proc/self/exe", words);
    puts("exec failed");
}

/* A program of the host gets the same. */
static void host(void)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    handle(SIGHUP, quiet, 0, 0);
    handle(SIGFPE, quiet, 0, 0);
    sigaction(SIGSEGV, &ignore, NULL);
    sigaction(SIGUSR2, &ignore, NULL);
    set_mask(SIG_SETMASK, bit(SIGUSR1) | bit(SIGBUS) | bit(SIGRTMIN));
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGBUS);
    char *words[] = {"program", NULL};
    execv("/nowhere", words);
    printf("pending %lx\n", pending());
    execl("/bin/sed", "sed", "-n", "/^Sig[BIC]/p; /^Shd/p", "/proc/self/status", NULL);
    puts("exec failed");
}

static volatile int fired, overruns;

static void on_timer(int signal, siginfo_t *info, void *context)
{
    (void)context;
    if (signal == SIGRTMIN) {
        if (!fired)
            printf("code %d value %d\n", info->si_code, info->si_value.sival_int);
        overruns += info->si_overrun;
    }
    fired++;
}

static void timers(void)
{
    struct itimerval soon = {{0, 2000}, {0, 2000}}, none = {{0, 0}, {0, 0}}, old;
    handle(SIGALRM, on_timer, 0, 0);
    handle(SIGVTALRM, on_timer, 0, 0);
    handle(SIGPROF, on_timer, 0, 0);
    handle(SIGRTMIN, on_timer, 0, 0);
    static const int kinds[] = {ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF};
    for (int i = 0; i < 3; i++) {
        fired = 0;
        setitimer(kinds[i], &soon, NULL);
        while (fired < 20)
            ;
        setitimer(kinds[i], &none, &old);
        printf("timer %d fired, interval %ld\n", i, (long)old.it_interval.tv_usec);
    }
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 42};
    printf("%d\n", timer_create(CLOCK_MONOTONIC, &event, &timer));
    struct itimerspec every = {{0, 1000000}, {0, 1000000}}, left;
    fired = 0;
    printf("%d\n", timer_settime(timer, 0, &every, NULL));
    while (fired < 20)
        ;
    set_mask(SIG_BLOCK, bit(SIGRTMIN));
    pause_for(30);
    set_mask(SIG_UNBLOCK, bit(SIGRTMIN));
    printf("overruns %d %d\n", overruns > 10, timer_getoverrun(timer) >= 0);
    timer_gettime(timer, &left);
    printf("interval %ld\n", left.it_interval.tv_nsec);
    printf("%d ", timer_delete(timer));
    int result = timer_delete(timer);
    printf("%d %d\n", result, errno);
    event.sigev_notify = SIGEV_NONE;
    printf("%d\n", timer_create(CLOCK_REALTIME, &event, &timer));
    result = timer_create(77, &event, &timer);
    printf("%d %d\n", result, errno);
    printf("%ld\n", syscall(SYS_timer_create, CLOCK_MONOTONIC, NULL, &timer));
}

/* A busy program: everything is as it was wherever it is interrupted. */
static volatile unsigned long hits;

static void disturb(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
    hits++;
    __asm__ volatile("movi v0.16b, #255\n movi v7.16b, #1\n movi v16.16b, #3\n movi v31.16b, #9\n mov x5, #-1\n"
                     "mov x15, #77\n cmp x5, x15\n msr fpcr, %0\n"
                     "fdiv d0, d7, d31" ::"r"(3UL << 22)
                     : "v0", "v7", "v16", "v31", "x5", "x15", "cc", "memory");
}

static unsigned long work(unsigned rounds)
{
    unsigned long sum = 1;
    double real = 1.0;
    unsigned char bytes[64];
    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)i;
    for (unsigned i = 0; i < rounds; i++) {
        unsigned long low, carry;
        __asm__ volatile("adds %0, %2, %3\n adc %1, xzr, xzr" : "=&r"(low), "=r"(carry) : "r"(sum), "r"(sum << 13) : "cc");
        sum = low * 6364136223846793005UL + carry + bytes[i & 63];
        bytes[sum >> 58] ^= (unsigned char)sum;
        real = real * 1.0000001 + (double)(sum & 255) / 3.0;
        if (sum & 1)
            sum ^= (unsigned long)real;
    }
    unsigned long word;
    memcpy(&word, &real, 8);
    return sum ^ word;
}

static void busy(void)
{
    struct itimerval every = {{0, 500}, {0, 500}}, none = {{0, 0}, {0, 0}};
    const unsigned n = 100000;
    unsigned long alone = work(n);
    handle(SIGALRM, disturb, 0, 0);
    setitimer(ITIMER_REAL, &every, NULL);
    unsigned rounds = 0;
    int same = 1;
    do {
        same &= work(n) == alone;
        rounds++;
    } while (hits < 100 && rounds < 4000);
    setitimer(ITIMER_REAL, &none, NULL);
    printf("same %d hits %d\n", same, hits >= 100);
}

CASES({"defaults", defaults}, {"stops", stops}, {"children", children}, {"forks", forks}, {"start", start},
      {"execs", execs}, {"host", host}, {"timers", timers}, {"busy", busy})
