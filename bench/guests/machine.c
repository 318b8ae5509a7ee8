/* Indirect jumps: an interpreter for a little stack machine, whose program adds up squares below n. */
#define NAME "machine"
#define DEFAULT_WORK 60000
#include "guest.h"

enum { PUSH, ADD, MULTIPLY, LOAD, STORE, LESS, BRANCH, HALT };

static const u8 program[] = {
    LOAD, 0, LOAD, 0, MULTIPLY, LOAD, 1, ADD, STORE, 1, /* sum += i * i */
    LOAD, 0, PUSH, 1, ADD, STORE, 0,                    /* i += 1 */
    LOAD, 0, LOAD, 2, LESS, BRANCH, 0,                  /* while (i < n) */
    HALT,
};

static NOINLINE u64 interpret(const u8 *code, u64 *variables)
{
    static const void *const operations[] = {&&push, &&add, &&multiply, &&load, &&store, &&less, &&branch, &&halt};
    u64 stack[16], *top = stack;
    const u8 *at = code;
#define NEXT goto *operations[*at++]
    NEXT;
push:
    *top++ = *at++;
    NEXT;
add:
    top--, top[-1] += *top;
    NEXT;
multiply:
    top--, top[-1] *= *top;
    NEXT;
load:
    *top++ = variables[*at++];
    NEXT;
store:
    variables[*at++] = *--top;
    NEXT;
less:
    top--, top[-1] = top[-1] < *top;
    NEXT;
branch:
    at = *--top ? code + *at : at + 1;
    NEXT;
halt:
    return variables[1];
}

static u64 work(u64 n)
{
    u64 variables[3] = {0, 0, n};
    return interpret(program, variables);
}
