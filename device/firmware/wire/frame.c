#include "frame.h"

/* Of four bits: 64 bytes of flash in place of 1,024. */
static const uint32_t crc_table[16] = {
    0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
    0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
};

uint32_t frame_crc(uint32_t crc, const uint8_t *bytes, size_t count) {
    crc = ~crc;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ crc_table[crc & 15];
        crc = crc >> 4 ^ crc_table[crc & 15];
    }
    return ~crc;
}

size_t frame_encode(uint8_t *frame, size_t body) {
    const uint32_t crc = frame_crc(0, frame + FRAME_LEAD, body);
    for (unsigned i = 0; i < FRAME_CRC; i++) {
        frame[FRAME_LEAD + body + i] = (uint8_t)(crc >> 8 * i);
    }
    const size_t end = FRAME_LEAD + body + FRAME_CRC;
    size_t out = 2, code = 1; /* what is written never overtakes what is read */
    frame[0] = 0;
    for (size_t in = FRAME_LEAD; in < end; in++) {
        const uint8_t byte = frame[in];
        if (byte != 0) {
            frame[out++] = byte;
        }
        if (byte == 0 || (out - code == 0xFF && in + 1 < end)) {
            frame[code] = (uint8_t)(out - code);
            code = out++;
        }
    }
    frame[code] = (uint8_t)(out - code);
    frame[out++] = 0;
    return out;
}

void frame_reader_init(struct frame_reader *reader, uint8_t *buffer, uint16_t size) {
    *reader = (struct frame_reader){.buffer = buffer, .size = size};
}

/* Decodes COBS in place; returns the number of bytes, 0 if these are none. */
static size_t decode(uint8_t *bytes, size_t count) {
    size_t in = 0, out = 0;
    while (in < count) {
        const size_t code = bytes[in++];
        if (in + code - 1 > count) {
            return 0;
        }
        for (size_t i = 1; i < code; i++) {
            bytes[out++] = bytes[in++];
        }
        if (code < 0xFF && in < count) {
            bytes[out++] = 0;
        }
    }
    return out;
}

size_t frame_reader_take(struct frame_reader *reader, uint8_t byte) {
    if (byte != 0) {
        if (reader->count < reader->size) {
            reader->buffer[reader->count++] = byte;
        } else {
            reader->too_long = true;
        }
        return 0;
    }
    if (reader->count == 0) {
        return 0;
    }
    const size_t size = reader->too_long ? 0 : decode(reader->buffer, reader->count);
    reader->count = 0;
    reader->too_long = false;
    if (size > FRAME_CRC && size - FRAME_CRC <= FRAME_MAX_BODY) {
        const uint8_t *end = reader->buffer + size - FRAME_CRC;
        const uint32_t crc = (uint32_t)end[0] | (uint32_t)end[1] << 8 | (uint32_t)end[2] << 16 | (uint32_t)end[3] << 24;
        if (frame_crc(0, reader->buffer, size - FRAME_CRC) == crc) {
            reader->good++;
            return size - FRAME_CRC;
        }
    }
    reader->bad++;
    return 0;
}
