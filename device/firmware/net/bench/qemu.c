/* The harness on a Cortex-M in QEMU: start, files by semihosting, instructions by SysTick.
 *
 * With `-icount shift=0`, QEMU's clock advances by a nanosecond an instruction, so that ticks of SysTick are a fixed
 * number of instructions. How many is measured with a loop of known length.
 */
#include "bench.h"

enum {
    SYS_OPEN = 0x01,
    SYS_CLOSE = 0x02,
    SYS_WRITE = 0x05,
    SYS_READ = 0x06,
    SYS_SEEK = 0x0A,
    SYS_EXIT_EXTENDED = 0x20,
    APPLICATION_EXIT = 0x20026,
    READ_BINARY = 1,
    WRITE_BINARY = 5,
    LOOPS = 1000000
};

#define SYSTICK_CONTROL (*(volatile uint32_t *)0xE000E010u)
#define SYSTICK_RELOAD (*(volatile uint32_t *)0xE000E014u)
#define SYSTICK_VALUE (*(volatile uint32_t *)0xE000E018u)
#define COPROCESSORS (*(volatile uint32_t *)0xE000ED88u)
#define SYSTICK_MASK 0xFFFFFFu
#define UNUSED_STACK 0xA5A5A5A5u

extern uint32_t data_start[], data_end[], data_source[], bss_start[], bss_end[], stack_start[], stack_end[];

static uint64_t ticks;
static uint32_t last_value;
static uint64_t ticks_of_loops;

static intptr_t semihost(int operation, const void *arguments)
{
    register intptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static size_t length_of(const char *text)
{
    size_t length = 0;
    while (text[length] != '\0') {
        length++;
    }
    return length;
}

static intptr_t open_file(const char *name, uintptr_t mode)
{
    const uintptr_t arguments[3] = {(uintptr_t)name, mode, length_of(name)};
    return semihost(SYS_OPEN, arguments);
}

static void close_file(intptr_t file)
{
    const intptr_t arguments[1] = {file};
    (void)semihost(SYS_CLOSE, arguments);
}

int bench_read(long offset, void *content, size_t size)
{
    const intptr_t file = open_file("slices.bin", READ_BINARY);
    int bad = 1;
    if (file != -1) {
        const uintptr_t seek[2] = {(uintptr_t)file, (uintptr_t)offset};
        const uintptr_t read[3] = {(uintptr_t)file, (uintptr_t)content, size};
        bad = semihost(SYS_SEEK, seek) != 0 || semihost(SYS_READ, read) != 0;
        close_file(file);
    }
    return bad;
}

int bench_write(const void *content, size_t size)
{
    static intptr_t file = -1; /* stays open: QEMU does not append to a file that exists */
    if (file == -1) {
        file = open_file("results.bin", WRITE_BINARY);
    }
    if (file != -1) {
        const uintptr_t write[3] = {(uintptr_t)file, (uintptr_t)content, size};
        return semihost(SYS_WRITE, write) != 0;
    }
    return 1;
}

void bench_start(void)
{
    SYSTICK_RELOAD = SYSTICK_MASK;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 5; /* enabled, processor clock, no interrupt */
    last_value = SYSTICK_VALUE;
    ticks = 0;
}

void bench_poll(void *context)
{
    const uint32_t value = SYSTICK_VALUE;
    (void)context;
    ticks += (last_value - value) & SYSTICK_MASK;
    last_value = value;
}

uint64_t bench_instructions(void)
{
    bench_poll(NULL);
    return ticks * (2u * LOOPS) / ticks_of_loops;
}

static void calibrate(void)
{
    uint32_t count = LOOPS;
    bench_start();
    __asm__ volatile(".syntax unified\n1: subs %0, %0, #1\n bne 1b" : "+l"(count) : : "cc");
    bench_poll(NULL);
    ticks_of_loops = ticks;
}

static size_t words_between(const uint32_t *start, const uint32_t *end)
{
    return ((uintptr_t)end - (uintptr_t)start) / sizeof *start;
}

uint32_t bench_stack(void)
{
    const size_t words = words_between(stack_start, stack_end);
    size_t unused = 0;
    while (unused < words && stack_start[unused] == UNUSED_STACK) {
        unused++;
    }
    return (uint32_t)(4 * (words - unused));
}

static void leave(int code)
{
    const uintptr_t arguments[2] = {APPLICATION_EXIT, (uintptr_t)code};
    (void)semihost(SYS_EXIT_EXTENDED, arguments);
    for (;;) {
    }
}

void fault(void);

void fault(void)
{
    leave(3);
}

void reset(void);

void reset(void)
{
    const size_t in_use = 32;
    size_t i;
    for (i = 0; i < words_between(data_start, data_end); i++) {
        data_start[i] = data_source[i];
    }
    for (i = 0; i < words_between(bss_start, bss_end); i++) {
        bss_start[i] = 0;
    }
    for (i = 0; i < words_between(stack_start, stack_end) - in_use; i++) {
        stack_start[i] = UNUSED_STACK;
    }
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    COPROCESSORS |= 0xFu << 20; /* MVE shares its registers with the floating point unit */
#endif
    calibrate();
    leave(bench_main());
}

/* The stack, the start, and a fault for all other exceptions that have fixed numbers. */
__asm__(".section .vectors, \"a\"\n"
        ".word stack_end, reset, fault, fault, fault, fault, fault, fault\n"
        ".text\n");
