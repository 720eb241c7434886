/* Sends every message back, however long it is, in 2 KB of memory: make BOARD=mps2-an500 PROGRAM=echo */
#include "board.h"
#include "link.h"

enum { PAYLOAD = 128, WINDOW = 256, TRANSMIT = 512 };
static struct wire_link link;
static uint8_t received[WINDOW], sent[TRANSMIT], frame_in[WIRE_FRAME(PAYLOAD)], frame_out[WIRE_FRAME(PAYLOAD)];

static void echo(void *context, const struct wire_piece *piece) {
    if (piece->at == 0) (void)wire_write_length(context, piece->size);
    (void)wire_write(context, piece->bytes, piece->count);
}

int main(void) {
    const struct wire_settings settings = {false, PAYLOAD, WINDOW, TRANSMIT, received, sent, frame_in, frame_out, echo, &link};
    uint32_t session = board_random() | 1U;
    (void)wire_open(&link, &settings, wire_session(session));
    for (;;) {
        uint8_t byte;
        size_t size;
        board_alive();
        while (core_read(&byte, 1) > 0) wire_take(&link, &byte, 1, core_milliseconds());
        if (link.state > WIRE_OPEN) (void)wire_open(&link, &settings, wire_session(session += 2));
        while (wire_room(&link) >= WINDOW + WIRE_LENGTH && wire_deliver(&link)) {}
        if (!core_is_sending() && (size = wire_next_frame(&link, core_milliseconds())) > 0) core_write(frame_out, size);
        core_sleep();
    }
}
