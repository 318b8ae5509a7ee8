/* Byte loads and short loops: counts words in a text and finds a pattern in it, n times over. */
#define NAME "string"
#define DEFAULT_WORK 60
#include "guest.h"

#define LENGTH 8192
static char text[LENGTH + 1];

static NOINLINE u64 words(const char *at)
{
    u64 count = 0;
    int inside = 0;
    for (; *at; at++) {
        int letter = *at >= 'a' && *at <= 'z';
        count += (u64)(letter && !inside);
        inside = letter;
    }
    return count;
}

static NOINLINE u64 occurrences(const char *at, const char *pattern)
{
    u64 count = 0;
    for (; *at; at++) {
        u64 i = 0;
        while (pattern[i] && at[i] == pattern[i])
            i++;
        count += !pattern[i];
    }
    return count;
}

static u64 work(u64 n)
{
    u64 seed = 11, sum = 0;
    for (u64 i = 0; i < LENGTH; i++)
        text[i] = "abcde fg"[next_random(&seed) >> 61];
    for (u64 round = 0; round < n; round++) {
        sum += words(text) * 1000 + occurrences(text, "abc");
        text[next_random(&seed) % LENGTH] = 'a';
    }
    return sum;
}
