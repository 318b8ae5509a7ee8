/* Dependent loads: n thousand steps along one random cycle through 16 MiB. */
#define NAME "chase"
#define DEFAULT_WORK 300
#include "guest.h"

#define CELLS (1u << 22)
static u32 next[CELLS];

static u64 work(u64 n)
{
    u64 seed = 5;
    u32 cells = n < 10 ? 1u << 10 : n < 1000 ? 1u << 16 : CELLS; /* short runs shall not spend their time here */
    u32 at = 0;
    for (u32 i = 0; i < cells; i++)
        next[i] = i;
    for (u32 i = cells - 1; i > 0; i--) { /* Sattolo: a single cycle */
        u32 j = (u32)((next_random(&seed) >> 32) * i >> 32);
        u32 kept = next[i];
        next[i] = next[j];
        next[j] = kept;
    }
    for (u64 step = 0; step < n * 1000; step++)
        at = next[at];
    return at;
}
