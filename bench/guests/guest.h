/* What the guests share: an entry point, two system calls, and the one line of output `NAME WORK RESULT`.
 *
 * A guest is freestanding C for AArch64 Linux (no C library): it defines NAME and DEFAULT_WORK, includes this file and
 * defines `static u64 work(u64 n)`. Its first argument replaces DEFAULT_WORK. Integer registers only
 * (-mgeneral-regs-only), so that the base instruction set is all it needs. The same source makes a program for x86-64,
 * which the benchmark compares with (`python -m bench optimizer`).
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

#define NOINLINE __attribute__((noinline))

static u64 work(u64 n);

#if defined(__aarch64__)
enum { WRITE = 64, EXIT_GROUP = 94 };

static long system_call(long number, long a, long b, long c)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}

__asm__(".global _start\n"
        "_start: mov x29, #0\n"
        "        mov x30, #0\n"
        "        mov x0, sp\n"
        "        bl guest_main\n");
#elif defined(__x86_64__)
enum { WRITE = 1, EXIT_GROUP = 231 };

static long system_call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

__asm__(".global _start\n"
        "_start: xor %ebp, %ebp\n"
        "        mov %rsp, %rdi\n"
        "        call guest_main\n");
#else
#error "guests are for AArch64 and x86-64"
#endif

static void put_text(const char *text)
{
    u64 length = 0;
    while (text[length])
        length++;
    system_call(WRITE, 1, (long)text, (long)length);
}

static void put_number(u64 value)
{
    char digits[24];
    u64 at = sizeof digits - 1;
    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    put_text(digits + at);
}

__attribute__((used)) static void guest_main(long *stack)
{
    u64 n = DEFAULT_WORK;
    if (stack[0] > 1) {
        n = 0;
        for (const char *digit = (const char *)stack[2]; *digit >= '0' && *digit <= '9'; digit++)
            n = n * 10 + (u64)(*digit - '0');
    }
    u64 result = work(n);
    put_text(NAME " ");
    put_number(n);
    put_text(" ");
    put_number(result);
    put_text("\n");
    system_call(EXIT_GROUP, 0, 0, 0);
}

/* A small generator (xorshift64*), so that data is the same everywhere. */
static inline u64 next_random(u64 *state)
{
    u64 x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1dul;
}
