/* A reliable stream of messages over a serial line: "Link" in docs/wire.md, with a fixed baud rate.
 *
 * The library allocates nothing and calls no clock: bytes and milliseconds go in, frames come out.
 *
 *     wire_open(&link, &settings, session)            a new session
 *     wire_take(&link, bytes, count, now)             bytes that arrived
 *     size = wire_next_frame(&link, now)              a frame to send lies in settings.frame_out
 *     wire_deliver(&link)                             calls settings.receive with a piece of a message
 *     wire_write_length, wire_write                   a message to send
 *
 * When the state is no longer OPENING or OPEN and no frame is due, the session is over: open another.
 */
#ifndef WIRE_LINK_H
#define WIRE_LINK_H

#include "frame.h"

enum {
    WIRE_VERSION = 2,
    WIRE_MIN_PAYLOAD = 64,
    WIRE_MAX_PAYLOAD = 1024,
    WIRE_MAX_MESSAGE = 262144,
    WIRE_LENGTH = 3,     /* bytes of the longest length */
    WIRE_MAX_PAIRS = 32, /* in a packet */
    WIRE_DATA_HEADER = 9,
    WIRE_MAX_ACK = WIRE_DATA_HEADER + 4 * WIRE_MAX_PAIRS
};

#ifndef WIRE_RUNS
#define WIRE_RUNS 16 /* stretches beyond a gap that a receiver keeps, at most 31 */
#endif
#ifndef WIRE_SEGMENTS
#define WIRE_SEGMENTS 16 /* segments in flight */
#endif

#define WIRE_BODY(payload) \
    ((payload) + WIRE_DATA_HEADER > WIRE_MAX_ACK ? (payload) + WIRE_DATA_HEADER : WIRE_MAX_ACK)
#define WIRE_FRAME(payload) FRAME_BUFFER(WIRE_BODY(payload))

enum wire_state { WIRE_OPENING, WIRE_OPEN, WIRE_RESTARTED, WIRE_CLOSED, WIRE_REFUSED };

/* `count` bytes of a message of `size` bytes, from its byte `at` on. */
struct wire_piece {
    uint32_t size, at;
    const uint8_t *bytes;
    uint32_t count;
};

struct wire_settings {
    bool active;       /* whether this end requests the session */
    uint16_t payload;  /* of the largest frame accepted, 64 to 1,024 */
    uint16_t window;   /* bytes at `received`: a power of two, at least one payload */
    uint16_t transmit; /* bytes at `unacknowledged`: a power of two, at least 64 */
    uint8_t *received, *unacknowledged;
    uint8_t *frame_in, *frame_out; /* WIRE_FRAME(payload) bytes each */
    void (*receive)(void *context, const struct wire_piece *piece);
    void *context;
};

struct wire_run {
    uint32_t start, stop;
};

struct wire_segment {
    uint32_t start, order, sent_at;
    uint16_t size;
    uint8_t tries;
    uint8_t state;
};

/* Positions count the bytes of a stream modulo 2^32; times are milliseconds modulo 2^32. */
struct wire_link {
    struct wire_settings settings;
    struct frame_reader reader;
    enum wire_state state;
    uint32_t session, peer;
    uint16_t tag;
    uint8_t closes;
    bool open_due, ack_due, has_opened, has_progress, stalled;
    uint32_t open_at, opened_at, ack_at, last_sent, last_received;

    uint32_t expected, taken, acknowledged, edge_sent; /* received: in order, read by the program */
    uint32_t message_size, message_at;                 /* of the message that is being read */
    struct wire_run runs[WIRE_RUNS];
    uint8_t run_count;

    uint32_t base, next, end, edge, order, progress_at; /* sent: acknowledged, in flight, written */
    struct wire_segment segments[WIRE_SEGMENTS];
    uint16_t size, largest; /* of the next frame's payload, of any */
    uint32_t loss;          /* average share of lost frames, of 65,536 */
    uint32_t smoothed, variation, shortest, timeout, backoff;

    uint32_t retransmits, duplicates, ignored, echoes;
};

/* Returns a number for a session, of a random one that is not 0: the lowest bit of each byte that links alter is
 * flipped, so that OPEN crosses such a link and the host can name the cause. */
uint32_t wire_session(uint32_t number);

/* Starts a session; false if the settings do not fit or its number is 0. */
bool wire_open(struct wire_link *link, const struct wire_settings *settings, uint32_t session);

/* Ends the session; three frames remain to be sent. */
void wire_close(struct wire_link *link);

void wire_take(struct wire_link *link, const uint8_t *bytes, size_t count, uint32_t now);

/* Returns the size of the frame that is to be sent now and lies in settings.frame_out, or 0. */
size_t wire_next_frame(struct wire_link *link, uint32_t now);

/* Returns in how many milliseconds a frame is due if nothing arrives, UINT32_MAX for never. */
uint32_t wire_due(const struct wire_link *link, uint32_t now);

/* Gives the program the next piece of a message; returns false if none has arrived. */
bool wire_deliver(struct wire_link *link);

/* Returns how many bytes wire_write takes now. */
uint32_t wire_room(const struct wire_link *link);

/* Begins a message of 1 to WIRE_MAX_MESSAGE bytes, which wire_write is then given in pieces of any size.
 * Takes up to WIRE_LENGTH bytes of room; returns false if there is less. */
bool wire_write_length(struct wire_link *link, uint32_t size);

/* Takes bytes of a message; returns how many. */
uint32_t wire_write(struct wire_link *link, const uint8_t *bytes, uint32_t count);

/* Takes a whole message, or returns false if there is no room for it. */
bool wire_send(struct wire_link *link, const uint8_t *bytes, uint32_t count);

#endif
