/* The firmware as a process of this machine: main.c with a terminal in place of boards/. `main` of main.c is
 * `serve_forever` here. */
#define _DEFAULT_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "board.h"

#ifndef HOST_RATE
#define HOST_RATE B921600
#endif

int serve_forever(void);

static int port;

static uint64_t microseconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000U + (uint64_t)now.tv_nsec / 1000U;
}

uint32_t core_microseconds(void) { return (uint32_t)microseconds(); }
uint32_t core_milliseconds(void) { return (uint32_t)(microseconds() / 1000U); }
bool core_is_sending(void) { return false; }
void board_alive(void) {}

void core_sleep(void) {
    struct pollfd waited = {.fd = port, .events = POLLIN};
    (void)poll(&waited, 1, 1);
}

uint32_t board_random(void) {
    uint32_t value;
    if (getrandom(&value, sizeof value, 0) != sizeof value) {
        exit(1);
    }
    return value;
}

size_t core_read(uint8_t *bytes, size_t size) {
    struct pollfd waited = {.fd = port, .events = POLLIN};
    if (poll(&waited, 1, 0) <= 0) {
        return 0;
    }
    const ssize_t count = read(port, bytes, size);
    if (count <= 0) {
        exit(0); /* the host's end is gone */
    }
    return (size_t)count;
}

void core_write(const uint8_t *bytes, size_t count) {
    while (count > 0) {
        const ssize_t taken = write(port, bytes, count);
        if (taken < 0) {
            exit(0);
        }
        bytes += taken;
        count -= (size_t)taken;
    }
}

int main(int count, char **arguments) {
    struct termios settings;
    port = count == 2 ? open(arguments[1], O_RDWR | O_NOCTTY) : -1;
    if (port < 0 || tcgetattr(port, &settings) != 0) {
        (void)fprintf(stderr, "usage: host_board TERMINAL\n");
        return 2;
    }
    cfmakeraw(&settings);
    (void)cfsetspeed(&settings, HOST_RATE);
    if (tcsetattr(port, TCSANOW, &settings) != 0) {
        return 2;
    }
    return serve_forever();
}
