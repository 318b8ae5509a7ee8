/* Compares and data-dependent branches: quicksort of n numbers; the result is a checksum of the order. */
#define NAME "sort"
#define DEFAULT_WORK 40000
#include "guest.h"

#define LIMIT 4000000
static u32 numbers[LIMIT];

static void quicksort(u32 *from, u32 *to)
{
    while (to - from > 16) {
        u32 pivot = from[(to - from) / 2];
        u32 *left = from, *right = to - 1;
        for (;;) {
            while (*left < pivot)
                left++;
            while (*right > pivot)
                right--;
            if (left >= right)
                break;
            u32 kept = *left;
            *left++ = *right;
            *right-- = kept;
        }
        quicksort(from, right + 1);
        from = right + 1;
    }
    for (u32 *at = from + 1; at < to; at++) {
        u32 value = *at, *hole = at;
        for (; hole > from && hole[-1] > value; hole--)
            *hole = hole[-1];
        *hole = value;
    }
}

static u64 round(u64 seed, u64 n)
{
    u64 sum = 0;
    for (u64 i = 0; i < n; i++)
        numbers[i] = (u32)(next_random(&seed) >> 32);
    quicksort(numbers, numbers + n);
    for (u64 i = 0; i < n; i++)
        sum = sum * 31 + numbers[i];
    return sum;
}

static u64 work(u64 n)
{
    u64 sum = round(7, n < LIMIT ? n : LIMIT);
    for (u64 seed = 8; n > LIMIT; seed++) { /* as often as they fit */
        n -= LIMIT;
        sum ^= round(seed, n < LIMIT ? n : LIMIT);
    }
    return sum;
}
