/* Signals that an instruction causes: siginfo, sigcontext, and what becomes of the context when a handler changes it. */
#include "case.h"

#define ESR_MAGIC 0x45535201
#define FPSIMD_MAGIC 0x46508001

static sigjmp_buf out;
static int with_esr; /* qemu has none */
static char *page, *readonly;

static struct _aarch64_ctx *record(ucontext_t *context, unsigned magic)
{
    char *at = (char *)context->uc_mcontext.__reserved;
    for (struct _aarch64_ctx *found = (void *)at; found->magic; found = (void *)(at += found->size))
        if (found->magic == magic)
            return found;
    return NULL;
}

static const char *place(void *address)
{
    if (address >= (void *)page && address < (void *)(page + 8192))
        return "page";
    if (address >= (void *)readonly && address < (void *)(readonly + 4096))
        return "readonly";
    return (unsigned long)address < 4096 ? "low" : "elsewhere";
}

static void show(int signal, siginfo_t *info, void *where)
{
    ucontext_t *context = where;
    struct esr_context *esr = (void *)record(context, ESR_MAGIC);
    int at_pc = (unsigned long)info->si_addr == context->uc_mcontext.pc;
    printf("signal %d errno %d address %s", signal, info->si_errno, at_pc ? "pc" : place(info->si_addr));
    if (page)
        printf(" code %d", info->si_code);
    if (page && (!at_pc || signal == SIGSEGV))
        printf(" low bits %lx", (unsigned long)info->si_addr & 0xfff);
    if (signal == SIGSEGV && esr && with_esr)
        printf(" class %lx write %lx", (unsigned long)esr->esr >> 26, (unsigned long)esr->esr >> 6 & 1);
    if (signal == SIGSEGV)
        printf(" same %d", context->uc_mcontext.fault_address == (unsigned long)info->si_addr);
    printf(" onstack %d mask %lx\n", context->uc_stack.ss_flags, *(unsigned long *)&context->uc_sigmask);
    siglongjmp(out, 1);
}

static void prepare(void)
{
    puts("prepared"); /* and whatever the C library needs is mapped: nothing comes into the hole */
    page = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    readonly = page + 8192;
    mprotect(readonly, 4096, PROT_READ);
    munmap(page + 4096, 4096);
    for (int signal = 1; signal < 32; signal++)
        if (signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGTRAP || signal == SIGFPE)
            handle(signal, show, 0, 0);
}

#define TRY(...)                                                                                                       \
    if (!sigsetjmp(out, 1)) {                                                                                          \
        __VA_ARGS__;                                                                                                   \
        puts("went on");                                                                                               \
    }

static void accesses(void)
{
    prepare();
    TRY(*(volatile int *)8)
    TRY(*(volatile char *)9 = 1)
    TRY(*(volatile int *)(page + 4096))
    TRY(*(volatile long *)(page + 4092))
    TRY(*(volatile long *)(page + 4092) = 1)
    TRY(*(volatile int *)(readonly + 16))
    TRY(*(volatile int *)(readonly + 16) = 1)
    TRY(__asm__ volatile("ldp x0, x1, [%0]" ::"r"(page + 4088) : "x0", "x1", "memory"))
    TRY(__asm__ volatile("stp q0, q1, [%0]" ::"r"(page + 4080) : "memory"))
    TRY(__asm__ volatile("ld4 {v0.16b - v3.16b}, [%0]" ::"r"(page + 4064) : "v0", "v1", "v2", "v3"))
    TRY(__asm__ volatile("prfm pldl1keep, [%0]" ::"r"(8L)))
}

static void syndromes(void)
{
    with_esr = 1;
    accesses();
}

static void instructions(void)
{
    prepare();
    TRY(__asm__ volatile(".inst 0"))
    TRY(__asm__ volatile("brk 77"))
    TRY(((void (*)(void))(page + 4096))())
    TRY(((void (*)(void))page)())
    TRY(((void (*)(void))16)())
}

static void file_end(void)
{
    prepare();
    FILE *file = tmpfile();
    char *mapped = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
    page = mapped;
    TRY(*(volatile int *)(mapped + 4096))
    TRY(*(volatile int *)(mapped + 8) = 1)
}

static void edit(int signal, siginfo_t *info, void *where)
{
    ucontext_t *context = where;
    struct fpsimd_context *vectors = (void *)record(context, FPSIMD_MAGIC);
    (void)signal, (void)info;
    context->uc_mcontext.pc += 4;
    for (int i = 0; i < 8; i++)
        context->uc_mcontext.regs[i] += 100 + i;
    for (int i = 0; i < 4; i++)
        vectors->vregs[i] += ((__uint128_t)(i + 1) << 64) + 7;
    context->uc_mcontext.pstate ^= 0xf0000000;
    vectors->fpsr |= 0x10;
    vectors->fpcr |= 1 << 22; /* round up */
    *(unsigned long *)&context->uc_sigmask |= 1 << (SIGUSR1 - 1);
}

static void edited(void)
{
    unsigned long x[8];
    __uint128_t v[4];
    prepare();
    handle(SIGSEGV, edit, 0, 0);
    __asm__ volatile(
        "mov x0, #0\n mov x1, #10\n mov x2, #20\n mov x3, #30\n mov x4, #40\n mov x5, #50\n mov x6, #60\n"
        "mov x7, #70\n movi v0.2d, #0\n movi v1.2d, #0xff\n movi v2.2d, #0\n movi v3.2d, #0\n msr fpsr, xzr\n"
        "ldr x0, [x0]\n"
        "msr fpcr, xzr\n"
        "stp x0, x1, [%0]\n stp x2, x3, [%0, 16]\n stp x4, x5, [%0, 32]\n stp x6, x7, [%0, 48]\n"
        "stp q0, q1, [%1]\n stp q2, q3, [%1, 32]\n" ::"r"(x), "r"(v)
        : "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "v0", "v1", "v2", "v3", "cc", "memory");
    for (int i = 0; i < 8; i++)
        printf("x%d %lu\n", i, x[i]);
    for (int i = 0; i < 4; i++)
        printf("v%d %lx %lx\n", i, (unsigned long)(v[i] >> 64), (unsigned long)v[i]);
    printf("mask %lx\n", get_mask());
}

static void edited_flags(void)
{
    unsigned long words[3];
    prepare();
    handle(SIGSEGV, edit, 0, 0);
    __asm__ volatile("mov x0, #0\n msr fpsr, xzr\n cmp x0, #5\n ldr x0, [x0]\n mrs x1, nzcv\n mrs x2, fpsr\n"
                     "mrs x3, fpcr\n msr fpcr, xzr\n stp x1, x2, [%0]\n str x3, [%0, 16]" ::"r"(words)
                     : "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "v0", "v1", "v2", "v3", "cc", "memory");
    printf("nzcv %lx fpsr %lx fpcr %lx\n", words[0], words[1], words[2]);
}

/* Endless recursion, with a handler on another stack. */
static volatile int depth;

static volatile int enough = 1 << 30;

static int deeper(int n)
{
    volatile char room[1000];
    depth = n;
    room[0] = (char)n;
    return n < enough ? deeper(n + 1) + room[0] : 0;
}

static void overflow(void)
{
    stack_t other = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&other, NULL);
    prepare();
    handle(SIGSEGV, show, SA_ONSTACK, 0);
    page = NULL;
    readonly = NULL;
    if (!sigsetjmp(out, 1))
        deeper(0);
    printf("deep %d\n", depth > 1000);
}

/* A handler without SA_ONSTACK whose frame has no room: SIGSEGV comes in its place, on the other stack. */
static void on_other(int signal, siginfo_t *info, void *context)
{
    (void)context;
    printf("signal %d code %d\n", signal, info->si_code);
    siglongjmp(out, 1);
}

static void never(int signal, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    printf("signal %d got room\n", signal);
}

static void no_room(void)
{
    stack_t other = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&other, NULL);
    handle(SIGSEGV, on_other, SA_ONSTACK, 0);
    handle(SIGUSR1, never, 0, 0);
    char *small = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(small, 4096);
    if (!sigsetjmp(out, 1))
        __asm__ volatile("mov x0, %0\n mov x1, #10\n mov x19, sp\n mov sp, %1\n mov x8, #129\n svc #0\n nop\n"
                         "mov sp, x19" ::"r"((long)getpid()),
                         "r"(small + 4096 + 2048)
                         : "x0", "x1", "x8", "x19", "memory");
    puts("out");
}

static void bad_return(int signal, siginfo_t *info, void *where)
{
    (void)signal, (void)info;
    ((ucontext_t *)where)->uc_mcontext.pstate |= 4; /* EL1 */
}

static void illegal_state(void)
{
    handle(SIGUSR1, bad_return, 0, 0);
    raise(SIGUSR1);
    puts("returned");
}

static void blocked(void)
{
    prepare();
    set_mask(SIG_BLOCK, bit(SIGSEGV));
    *(volatile int *)8 = 1;
}

static void ignored(void)
{
    signal(SIGSEGV, SIG_IGN);
    *(volatile int *)8 = 1;
}

CASES({"accesses", accesses}, {"syndromes", syndromes}, {"instructions", instructions}, {"file_end", file_end}, {"edited", edited},
      {"edited_flags", edited_flags}, {"overflow", overflow}, {"no_room", no_room}, {"illegal_state", illegal_state},
      {"blocked", blocked}, {"ignored", ignored})
