/* What the programs need of a board. A port implements these in one file: docs/firmware.md shows how. */
#ifndef BOARD_H
#define BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef BOARD_BAUD
#define BOARD_BAUD 115200
#endif

/* ---- of each board ---- */

extern const uint32_t board_clock; /* of SysTick, in Hz */

/* Sets clocks and pins, and the serial port with its interrupt; starts the watchdog if there is one. */
void board_start(void);

/* Serves the interrupts of the serial port: gives received bytes to core_received, takes bytes from core_next. Also
 * called every millisecond, for ports that cannot interrupt when they are ready to send. */
void board_interrupt(void);

/* Makes the port send what core_next gives; interrupts are off. */
void board_send(void);

/* Sends a character and waits until it has left, from a fault handler. */
void board_print(char character);

/* Keeps the watchdog from resetting the board. */
void board_alive(void);

/* Returns a number that differs each time that the board starts: from a generator, a clock that runs on a battery, or
 * a counter in flash. */
uint32_t board_random(void);

/* ---- of core.c, for the boards ---- */

void core_received(uint8_t byte);
int core_next(void); /* the next byte to send, -1 if there is none */
void core_enable_interrupt(unsigned number);

/* ---- of core.c, for the programs ---- */

/* Returns up to `size` bytes that have arrived. */
size_t core_read(uint8_t *bytes, size_t size);

/* Sends bytes, which have to stay where they are while core_is_sending. */
void core_write(const uint8_t *bytes, size_t count);
bool core_is_sending(void);

uint32_t core_milliseconds(void);
uint32_t core_microseconds(void);

/* Sleeps until an interrupt, at most a millisecond. */
void core_sleep(void);

#endif
