/* Arm MPS2 with a Cortex-M33 (application note AN505), as QEMU emulates it: all of it in the secure world. */
#include "mps2.h"

const uint32_t board_clock = 20000000;

static struct cmsdk_uart *const uart = (struct cmsdk_uart *)0x50200000;
static struct cmsdk_watchdog *const watchdog = (struct cmsdk_watchdog *)0x50081000;
enum { UART_INTERRUPT = 32 };

void board_start(void) {
    uart_start(uart, UART_INTERRUPT);
    watchdog_start(watchdog);
}

void board_send(void) { uart_fill(uart); }
void board_interrupt(void) { uart_interrupt(uart); }
void board_print(char character) { uart_print(uart, character); }
void board_alive(void) { watchdog_feed(watchdog); }
uint32_t board_random(void) { return emulator_random(); }
