/* Strided byte stores over more memory than a cache holds: counts the primes below n,
 * and where n is more than LIMIT below each LIMIT of it. */
#define NAME "sieve"
#define DEFAULT_WORK 400000
#include "guest.h"

#define LIMIT 32000000
static u8 composite[LIMIT];

static u64 round(u64 n)
{
    u64 count = 0;
    for (u64 i = 0; i < n; i++)
        composite[i] = 0;
    for (u64 i = 2; i < n; i++) {
        if (composite[i])
            continue;
        count++;
        for (u64 j = i * i; j < n; j += i)
            composite[j] = 1;
    }
    return count;
}

static u64 work(u64 n)
{
    u64 count = round(n < LIMIT ? n : LIMIT);
    while (n > LIMIT) {
        n -= LIMIT;
        count += round(n < LIMIT ? n : LIMIT);
    }
    return count;
}
