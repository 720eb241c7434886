/* A program that faults once a byte arrives, for test_boards.py. */
#include "board.h"

__attribute__((noinline)) static void undefined_instruction(void) {
    __asm__ volatile("udf #0");
}

int main(void) {
    uint8_t byte;
    static const uint8_t ready[] = "ready\r\n";
    core_write(ready, sizeof ready - 1);
    while (core_read(&byte, 1) == 0) {
        core_sleep();
    }
    undefined_instruction();
    return 0;
}
