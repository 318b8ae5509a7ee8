/* Calls and returns: the Fibonacci number n, by recursion. */
#define NAME "fib"
#define DEFAULT_WORK 27
#include "guest.h"

/* The barrier keeps gcc from turning the recursion into loops. */
static NOINLINE u64 fib(u64 n)
{
    __asm__("" : "+r"(n));
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static u64 work(u64 n)
{
    return fib(n);
}
