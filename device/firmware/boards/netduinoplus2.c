/* Netduino Plus 2: an STM32F405 (RM0090) with 1 MB of flash and 192 KB of RAM. QEMU has all of it at one address, the
 * chip 64 KB of it at 0x10000000. */
#include "board.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define RCC_CONTROL REGISTER(0x40023800)
#define RCC_PLL REGISTER(0x40023804)
#define RCC_AHB1 REGISTER(0x40023830)
#define RCC_AHB2 REGISTER(0x40023834)
#define RCC_APB2 REGISTER(0x40023844)
#define GPIOB_MODE REGISTER(0x40020400)
#define GPIOB_FUNCTION REGISTER(0x40020420)
#define RNG_CONTROL REGISTER(0x50060800)
#define RNG_STATUS REGISTER(0x50060804)
#define RNG_DATA REGISTER(0x50060808)
#define WATCHDOG_KEY REGISTER(0x40003000)
#define WATCHDOG_PRESCALER REGISTER(0x40003004)
#define WATCHDOG_RELOAD REGISTER(0x40003008)
#define UART_STATUS REGISTER(0x40011000)
#define UART_DATA REGISTER(0x40011004)
#define UART_DIVISOR REGISTER(0x40011008)
#define UART_CONTROL REGISTER(0x4001100C)

enum { USART1 = 37, TX_EMPTY = 1 << 7, RX_FULL = 1 << 5, OVERRUN = 1 << 3, RX_INTERRUPT = 1 << 5, TX_INTERRUPT = 1 << 7 };

const uint32_t board_clock = 16000000; /* the oscillator inside, as after reset */

void board_start(void) {
    RCC_AHB1 |= 1U << 1; /* GPIOB: PB6 sends, PB7 receives */
    RCC_AHB2 |= 1U << 6; /* the generator of random numbers */
    RCC_APB2 |= 1U << 4; /* USART1 */
    GPIOB_MODE = (GPIOB_MODE & ~(15U << 12)) | 10U << 12;
    GPIOB_FUNCTION = (GPIOB_FUNCTION & ~(255U << 24)) | 0x77U << 24;
    RCC_PLL = 16U | 192U << 6 | 4U << 24; /* 16 MHz / 16 x 192 / 4: the generator runs at 48 MHz */
    RCC_CONTROL |= 1U << 24;
    RNG_CONTROL = 1U << 2;
    UART_DIVISOR = board_clock / BOARD_BAUD;
    UART_CONTROL = 1U << 13 | 1U << 3 | 1U << 2 | RX_INTERRUPT;
    core_enable_interrupt(USART1);
    WATCHDOG_KEY = 0x5555;
    WATCHDOG_PRESCALER = 6; /* 32 kHz / 256 */
    WATCHDOG_RELOAD = 1250; /* 10 s */
    WATCHDOG_KEY = 0xCCCC;
}

static void send_bytes(void) {
    while (UART_STATUS & TX_EMPTY) {
        const int byte = core_next();
        if (byte < 0) {
            UART_CONTROL &= ~(uint32_t)TX_INTERRUPT;
            return;
        }
        UART_DATA = (uint32_t)byte;
    }
}

void board_send(void) {
    UART_CONTROL |= TX_INTERRUPT;
    send_bytes();
}

void board_interrupt(void) {
    /* Bytes that were lost hold the interrupt, too; reading both registers clears that. */
    for (uint32_t status = UART_STATUS; status & (RX_FULL | OVERRUN); status = UART_STATUS) {
        const uint8_t byte = (uint8_t)UART_DATA;
        if (status & RX_FULL) {
            core_received(byte);
        }
    }
    send_bytes();
}

void board_print(char character) {
    while (!(UART_STATUS & TX_EMPTY)) {
    }
    UART_DATA = (uint8_t)character;
}

void board_alive(void) { WATCHDOG_KEY = 0xAAAA; }

uint32_t board_random(void) {
    for (unsigned i = 0; i < 10000 && !(RNG_STATUS & 1); i++) { /* QEMU has none: then it is always 0 */
    }
    return RNG_DATA;
}
