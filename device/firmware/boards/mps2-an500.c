/* Arm MPS2 with a Cortex-M7 (application note AN500), a Cortex-M4 (AN386) or a Cortex-M3 (AN385), as QEMU emulates
 * them: their memory, UART and watchdog are the same. */
#include "mps2.h"

const uint32_t board_clock = 25000000;

static struct cmsdk_uart *const uart = (struct cmsdk_uart *)0x40004000;
static struct cmsdk_watchdog *const watchdog = (struct cmsdk_watchdog *)0x40008000;
enum { UART_INTERRUPT = 0 };

void board_start(void) {
    uart_start(uart, UART_INTERRUPT);
    watchdog_start(watchdog);
}

void board_send(void) { uart_fill(uart); }
void board_interrupt(void) { uart_interrupt(uart); }
void board_print(char character) { uart_print(uart, character); }
void board_alive(void) { watchdog_feed(watchdog); }
uint32_t board_random(void) { return emulator_random(); }
