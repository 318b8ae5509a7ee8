/* Strided byte stores over more memory than a cache holds: counts the primes below n. */
#define NAME "sieve"
#define DEFAULT_WORK 400000
#include "guest.h"

#define LIMIT 32000000
static u8 composite[LIMIT];

static u64 work(u64 n)
{
    u64 count = 0;
    if (n > LIMIT)
        n = LIMIT;
    for (u64 i = 2; i < n; i++) {
        if (composite[i])
            continue;
        count++;
        for (u64 j = i * i; j < n; j += i)
            composite[j] = 1;
    }
    return count;
}
