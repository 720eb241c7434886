/* What the harness needs of the machine: files, and a count of instructions. */
#ifndef NETWORK_BENCH_H
#define NETWORK_BENCH_H

#include <stddef.h>
#include <stdint.h>

/* Reads a piece of slices.bin, or adds one to results.bin; 0 if all of it was read or written. */
int bench_read(long offset, void *content, size_t size);
int bench_write(const void *content, size_t size);

/* Starts to count, keeps the count up to date (at least once in 100 million instructions), returns it. */
void bench_start(void);
void bench_poll(void *context);
uint64_t bench_instructions(void);

/* Bytes of stack that have ever been used; 0 where that is not measured. */
uint32_t bench_stack(void);

int bench_main(void);

#endif
