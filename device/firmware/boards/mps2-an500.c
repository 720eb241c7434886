/* Arm MPS2 with a Cortex-M7 (application note AN500), a Cortex-M4 (AN386) or a Cortex-M3 (AN385), as QEMU emulates
 * them: their memory, UART and watchdog are the same. */
#include "mps2.h"

const uint32_t board_clock = 25000000;

static struct cmsdk_uart *const uart = (struct cmsdk_uart *)0x40004000;
static struct cmsdk_watchdog *const watchdog = (struct cmsdk_watchdog *)0x40008000;
enum { UART_RX = 0, UART_TX = 1 };

void board_start(void) {
    uart_start(uart);
    core_enable_interrupt(UART_RX);
    core_enable_interrupt(UART_TX);
    watchdog->load = WATCHDOG_SECONDS * board_clock;
    watchdog->control = WATCHDOG_INTERRUPT | WATCHDOG_RESET;
}

/* Sending is started with interrupts off: the handler calls core_next, too. */
void board_send(void) {
    __asm__ volatile("cpsid i");
    uart_send(uart);
    __asm__ volatile("cpsie i");
}

void board_interrupt(void) { uart_interrupt(uart); }
void board_print(char character) { uart_print(uart, character); }
void board_alive(void) { watchdog->load = WATCHDOG_SECONDS * board_clock; }
uint32_t board_random(void) { return emulator_random(); }
