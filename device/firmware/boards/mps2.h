/* The UART and the watchdog that Arm's FPGA boards share (CMSDK, Arm DDI 0479), and semihosting. */
#ifndef BOARD_MPS2_H
#define BOARD_MPS2_H

#include "board.h"

struct cmsdk_uart {
    volatile uint32_t data, state, control, interrupt, divisor;
};

enum { TX_FULL = 1, RX_FULL = 2, TX_ENABLE = 1, RX_ENABLE = 2, TX_INTERRUPT = 4, RX_INTERRUPT = 8 };

struct cmsdk_watchdog {
    volatile uint32_t load, value, control, clear;
};

enum { WATCHDOG_INTERRUPT = 1, WATCHDOG_RESET = 2, WATCHDOG_SECONDS = 10 };

/* `interrupt` is that of a received byte; that of a sent one is the next. */
static inline void uart_start(struct cmsdk_uart *uart, unsigned interrupt) {
    uart->divisor = board_clock / BOARD_BAUD;
    uart->control = TX_ENABLE | RX_ENABLE | TX_INTERRUPT | RX_INTERRUPT;
    core_enable_interrupt(interrupt);
    core_enable_interrupt(interrupt + 1);
}

static inline void uart_fill(struct cmsdk_uart *uart) {
    while (!(uart->state & TX_FULL)) {
        const int byte = core_next();
        if (byte < 0) {
            return;
        }
        uart->data = (uint32_t)byte;
    }
}

static inline void uart_interrupt(struct cmsdk_uart *uart) {
    uart->interrupt = 3;
    while (uart->state & RX_FULL) {
        core_received((uint8_t)uart->data);
    }
    uart_fill(uart);
}

static inline void uart_print(struct cmsdk_uart *uart, char character) {
    while (uart->state & TX_FULL) {
    }
    uart->data = (uint8_t)character;
}

static inline void watchdog_feed(struct cmsdk_watchdog *watchdog) { watchdog->load = WATCHDOG_SECONDS * board_clock; }

static inline void watchdog_start(struct cmsdk_watchdog *watchdog) {
    watchdog_feed(watchdog);
    watchdog->control = WATCHDOG_INTERRUPT | WATCHDOG_RESET;
}

/* Semihosting: a call to QEMU. SYS_TIME gives seconds, SYS_ELAPSED ticks of the emulator: these boards have no generator. */
static inline uint32_t emulator_random(void) {
    uint32_t elapsed[2] = {0, 0};
    register uint32_t operation __asm__("r0") = 0x30;
    register void *argument __asm__("r1") = elapsed;
    __asm__ volatile("bkpt 0xAB" : "+r"(operation) : "r"(argument) : "memory");
    operation = 0x11;
    __asm__ volatile("bkpt 0xAB" : "+r"(operation) : "r"(argument) : "memory");
    return operation * 2654435761U ^ elapsed[0] ^ elapsed[1];
}

#endif
