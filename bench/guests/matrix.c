/* Multiply-add in three nested loops: the product of two 64 by 64 matrices, n times over. */
#define NAME "matrix"
#define DEFAULT_WORK 8
#include "guest.h"

#define SIZE 64
static u64 a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];

static NOINLINE void multiply(void)
{
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) {
            u64 sum = 0;
            for (int k = 0; k < SIZE; k++)
                sum += a[i][k] * b[k][j];
            c[i][j] = sum;
        }
}

static u64 work(u64 n)
{
    u64 seed = 3, sum = 0;
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) {
            a[i][j] = next_random(&seed);
            b[i][j] = next_random(&seed);
        }
    for (u64 round = 0; round < n; round++) {
        multiply();
        a[round % SIZE][0] ^= c[0][round % SIZE];
        sum += c[round % SIZE][1];
    }
    return sum;
}
