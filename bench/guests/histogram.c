/* Independent loads and stores all over 8 MiB: n thousand increments of random counters. */
#define NAME "histogram"
#define DEFAULT_WORK 200
#include "guest.h"

#define COUNTERS (1u << 21)
static u32 counters[COUNTERS];

static u64 work(u64 n)
{
    u64 seed = 9, sum = 0;
    for (u64 i = 0; i < n * 1000; i++) {
        u64 random = next_random(&seed);
        sum += ++counters[random >> 43];
    }
    return sum;
}
