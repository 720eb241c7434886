/* Arm MPS3 with a Cortex-M55 (application note AN547), as QEMU emulates it. Its SSE-300 has no CMSDK watchdog. */
#include "mps2.h"

const uint32_t board_clock = 32000000;

static struct cmsdk_uart *const uart = (struct cmsdk_uart *)0x59303000;
enum { UART_INTERRUPT = 33 };

void board_start(void) { uart_start(uart, UART_INTERRUPT); }
void board_send(void) { uart_fill(uart); }
void board_interrupt(void) { uart_interrupt(uart); }
void board_print(char character) { uart_print(uart, character); }
void board_alive(void) {}
uint32_t board_random(void) { return emulator_random(); }
