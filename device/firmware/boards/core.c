/* What all Cortex-M boards share: start, faults, the clock, and the bytes between the port and the program. */
#include "board.h"

#ifndef CORE_RING
#define CORE_RING 2048 /* received bytes: 22 ms at 921,600 baud; a power of two */
#endif
#ifndef CORE_INTERRUPTS
#define CORE_INTERRUPTS 96 /* vectors: one more than the highest number that a board enables */
#endif
enum { MILLISECOND = 1000 };

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define SYSTICK_CONTROL REGISTER(0xE000E010)
#define SYSTICK_RELOAD REGISTER(0xE000E014)
#define SYSTICK_VALUE REGISTER(0xE000E018)
#define INTERRUPT_ENABLE(word) REGISTER(0xE000E100 + 4 * (word))
#define VECTORS REGISTER(0xE000ED08)
#define RESET_CONTROL REGISTER(0xE000ED0C)
#define FAULT_STATUS REGISTER(0xE000ED28)
#define FAULT_ADDRESS REGISTER(0xE000ED38)
#define COPROCESSORS REGISTER(0xE000ED88)
#define RESET_REQUEST 0x05FA0004U
#define UNUSED_STACK 0xA5A5A5A5U

extern uint32_t stack_bottom[], stack_top[], data_start[], data_end[], bss_start[], bss_end[];
extern const uint32_t data_load[];

int main(void);

static volatile uint32_t ticks;
static uint8_t ring[CORE_RING];
static volatile uint32_t ring_in, ring_out; /* each is written by one side */
static const uint8_t *volatile sending;
static volatile size_t sending_left;

/* The compiler calls these two for copies. */
void *memcpy(void *restrict to, const void *restrict from, size_t count) {
    uint8_t *out = to;
    const uint8_t *in = from;
    for (; count > 0; count--) {
        *out++ = *in++;
    }
    return to;
}

void *memset(void *to, int value, size_t count) {
    uint8_t *out = to;
    for (; count > 0; count--) {
        *out++ = (uint8_t)value;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t count) {
    uint8_t *out = to;
    const uint8_t *in = from;
    if (out < in) {
        return memcpy(to, from, count);
    }
    for (; count > 0; count--) {
        out[count - 1] = in[count - 1];
    }
    return to;
}

void core_received(uint8_t byte) {
    if (ring_in - ring_out < CORE_RING) {
        ring[ring_in % CORE_RING] = byte;
        ring_in = ring_in + 1;
    }
}

int core_next(void) {
    if (sending_left == 0) {
        return -1;
    }
    const uint8_t byte = *sending;
    sending = sending + 1;
    sending_left = sending_left - 1;
    return byte;
}

size_t core_read(uint8_t *bytes, size_t size) {
    size_t count = 0;
    for (; count < size && ring_out != ring_in; count++) {
        bytes[count] = ring[ring_out % CORE_RING];
        ring_out = ring_out + 1;
    }
    return count;
}

void core_write(const uint8_t *bytes, size_t count) {
    sending = bytes;
    sending_left = count;
    __asm__ volatile("cpsid i"); /* board_interrupt calls core_next, too */
    board_send();
    __asm__ volatile("cpsie i");
}

bool core_is_sending(void) { return sending_left > 0; }

void core_enable_interrupt(unsigned number) { INTERRUPT_ENABLE(number / 32) = 1U << number % 32; }

uint32_t core_milliseconds(void) { return ticks; }

uint32_t core_microseconds(void) {
    uint32_t before, value;
    do { /* a tick may come between both */
        before = ticks;
        value = SYSTICK_RELOAD - SYSTICK_VALUE;
    } while (before != ticks);
    return before * MILLISECOND + value / (board_clock / 1000000U);
}

void core_sleep(void) { __asm__ volatile("wfi"); }

static void tick(void) {
    ticks = ticks + 1;
    board_interrupt();
}

static void print(const char *text) {
    for (; *text != 0; text++) {
        board_print(*text);
    }
}

static void print_number(const char *name, uint32_t value) {
    print(name);
    for (int shift = 28; shift >= 0; shift -= 4) {
        board_print("0123456789abcdef"[value >> shift & 15]);
    }
}

/* Prints where a fault happened, as text that the host's frames skip and its log shows, and starts again. */
__attribute__((used)) void core_fault(const uint32_t *frame) {
    print("\r\nglioslice: fault at ");
    print_number("0x", frame[6]);
    print_number(", called from 0x", frame[5]);
    print_number(", status 0x", FAULT_STATUS);
    print_number(", address 0x", FAULT_ADDRESS);
    print("\r\n");
    RESET_CONTROL = RESET_REQUEST;
    for (;;) {
    }
}

__attribute__((naked)) static void fault(void) {
    __asm__("movs r0, #4\n"
            "mov r1, lr\n"
            "tst r0, r1\n" /* which stack holds the registers */
            "mrs r0, msp\n"
            "beq 1f\n"
            "mrs r0, psp\n"
            "1: b core_fault\n");
}

typedef void handler(void);
extern handler *const vectors[16 + CORE_INTERRUPTS];

__attribute__((used, noreturn)) void core_start(void) {
    for (uint32_t *to = data_start, *from = (uint32_t *)data_load; to < data_end;) {
        *to++ = *from++;
    }
    /* cppcheck-suppress comparePointers ; the linker places both around the same section */
    for (uint32_t *to = bss_start; to < bss_end;) {
        *to++ = 0;
    }
    /* What stays as it is was never used: a debugger reads the high-water mark. */
    const uintptr_t used = (uintptr_t)__builtin_frame_address(0) - 64;
    for (uint32_t *to = stack_bottom; (uintptr_t)to < used;) {
        *to++ = UNUSED_STACK;
    }
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    COPROCESSORS |= 0xFU << 20;
    __asm__ volatile("dsb\nisb");
#endif
    VECTORS = (uint32_t)(uintptr_t)vectors;
    board_start();
    SYSTICK_RELOAD = board_clock / MILLISECOND - 1;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 7;
    (void)main();
    RESET_CONTROL = RESET_REQUEST;
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) handler *const vectors[16 + CORE_INTERRUPTS] = {
    [0] = (handler *)stack_top, [1] = core_start,
    [2 ... 14] = fault,         [15] = tick,
    [16 ... 16 + CORE_INTERRUPTS - 1] = board_interrupt,
};
