/* The harness on a host computer: nothing is counted. */
#include <stdio.h>

#include "bench.h"

int bench_read(long offset, void *content, size_t size)
{
    FILE *file = fopen("slices.bin", "rb");
    int bad = 1;
    if (file != NULL) {
        bad = fseek(file, offset, SEEK_SET) != 0 || fread(content, 1, size, file) != size;
        (void)fclose(file);
    }
    return bad;
}

int bench_write(const void *content, size_t size)
{
    static int started = 0;
    FILE *file = fopen("results.bin", started != 0 ? "ab" : "wb");
    int bad = 1;
    started = 1;
    if (file != NULL) {
        bad = fwrite(content, 1, size, file) != size;
        bad = fclose(file) != 0 || bad;
    }
    return bad;
}

void bench_start(void)
{
}

void bench_poll(void *context)
{
    (void)context;
}

uint64_t bench_instructions(void)
{
    return 0;
}

uint32_t bench_stack(void)
{
    return 0;
}

int main(void)
{
    return bench_main();
}
