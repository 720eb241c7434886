/* Bytes to frames and back: COBS between zeros, CRC-32. See "Frames" in docs/wire.md. */
#ifndef WIRE_FRAME_H
#define WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FRAME_MAX_BODY = 1088,
    FRAME_CRC = 4,
    FRAME_LEAD = 6 /* where the body lies before it is encoded: a zero, and a byte per 254 */
};

/* Bytes of a buffer that holds any frame with a body of this size. */
#define FRAME_BUFFER(body) ((body) + FRAME_LEAD + FRAME_CRC + 1)

/* Continues a CRC-32; the first call is given 0. */
uint32_t frame_crc(uint32_t crc, const uint8_t *bytes, size_t count);

/* Encodes the body that lies at frame + FRAME_LEAD in place; returns the size of the frame. */
size_t frame_encode(uint8_t *frame, size_t body);

struct frame_reader {
    uint8_t *buffer;
    uint16_t size;  /* of the buffer; longer frames are dropped */
    uint16_t count; /* bytes of the unfinished frame */
    bool too_long;
    uint32_t good, bad;
};

void frame_reader_init(struct frame_reader *reader, uint8_t *buffer, uint16_t size);

/* Takes a byte; returns the size of the body that it completes and that now lies in the buffer, or 0. */
size_t frame_reader_take(struct frame_reader *reader, uint8_t byte);

#endif
