/* The firmware: one slice after another from the serial port, one mask after another to it. */
#include "board.h"
#include "server.h"

enum { PAYLOAD = 512, WINDOW = 4096, TRANSMIT = 1024 };

static struct wire_link link;
static struct server server;
static uint8_t received[WINDOW], unacknowledged[TRANSMIT], frame_in[WIRE_FRAME(PAYLOAD)], frame_out[WIRE_FRAME(PAYLOAD)];

static const struct wire_settings settings = {
    .payload = PAYLOAD,
    .window = WINDOW,
    .transmit = TRANSMIT,
    .received = received,
    .unacknowledged = unacknowledged,
    .frame_in = frame_in,
    .frame_out = frame_out,
    .receive = server_receive,
    .context = &server,
};

/* Takes what has arrived, and sends a frame if one is due and the port is free. */
static void serve(void) {
    uint8_t bytes[64];
    size_t count;
    board_alive();
    while ((count = core_read(bytes, sizeof bytes)) > 0) {
        wire_take(&link, bytes, count, core_milliseconds());
    }
    if (!core_is_sending()) {
        count = wire_next_frame(&link, core_milliseconds());
        if (count > 0) {
            core_write(frame_out, count);
        }
    }
}

int main(void) {
    uint32_t session = board_random() | 1U;
    const struct server_board board = {
        .boot = (uint64_t)session << 32 | ~session,
        .microseconds = core_microseconds,
        .serve = serve,
    };
    server_init(&server, &link, &board);
    (void)wire_open(&link, &settings, wire_session(session));
    for (;;) {
        serve();
        const bool over = link.state != WIRE_OPENING && link.state != WIRE_OPEN;
        if (over && wire_due(&link, core_milliseconds()) == UINT32_MAX && !core_is_sending()) {
            session += 2; /* it stays odd, hence is never 0 */
            server_restart(&server);
            (void)wire_open(&link, &settings, wire_session(session));
        } else if (over || !server_step(&server)) {
            core_sleep();
        }
    }
}
