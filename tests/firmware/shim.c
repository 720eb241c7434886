/* The firmware's functions for tests/firmware/library.py: plain arguments, memory from malloc. */
#include <stdlib.h>
#include <string.h>

#include "confidence.h"
#include "link.h"
#include "masks.h"
#include "sha256.h"
#include "vp8.h"

struct end {
    struct wire_link link;
    struct wire_settings settings;
    void *message; /* the message that is being received, as large as it is: a sanitizer sees what goes beyond */
    uint32_t size;
    bool complete;
};

static void receive(void *context, const struct wire_piece *piece) {
    struct end *end = context;
    if (piece->at == 0) {
        end->message = malloc(piece->size);
        end->size = piece->size;
    }
    memcpy((char *)end->message + piece->at, piece->bytes, piece->count);
    end->complete = piece->at + piece->count == piece->size;
}

struct end *shim_open(bool active, uint16_t payload, uint16_t window, uint16_t transmit, uint32_t session) {
    struct end *end = calloc(1, sizeof *end);
    end->settings = (struct wire_settings){
        .active = active,
        .payload = payload,
        .window = window,
        .transmit = transmit,
        .received = malloc(window),
        .unacknowledged = malloc(transmit),
        .frame_in = malloc(WIRE_FRAME(payload)),
        .frame_out = malloc(WIRE_FRAME(payload)),
        .receive = receive,
        .context = end,
    };
    if (!wire_open(&end->link, &end->settings, session)) {
        free(end);
        return NULL;
    }
    return end;
}

void shim_free(struct end *end) {
    free(end->settings.received);
    free(end->settings.unacknowledged);
    free(end->settings.frame_in);
    free(end->settings.frame_out);
    free(end->message);
    free(end);
}

void shim_close(struct end *end) { wire_close(&end->link); }

void shim_take(struct end *end, const uint8_t *bytes, size_t count, uint32_t now) {
    wire_take(&end->link, bytes, count, now);
}

size_t shim_next_frame(struct end *end, uint32_t now, uint8_t *frame) {
    const size_t size = wire_next_frame(&end->link, now);
    memcpy(frame, end->settings.frame_out, size);
    return size;
}

uint32_t shim_due(const struct end *end, uint32_t now) { return wire_due(&end->link, now); }

uint32_t shim_write(struct end *end, const uint8_t *bytes, uint32_t count) {
    return wire_write(&end->link, bytes, count);
}

bool shim_write_length(struct end *end, uint32_t size) { return wire_write_length(&end->link, size); }

bool shim_send(struct end *end, const uint8_t *bytes, uint32_t count) { return wire_send(&end->link, bytes, count); }

/* Returns the size of the next message, which shim_message copies, or 0. */
uint32_t shim_receive(struct end *end) {
    while (!end->complete && wire_deliver(&end->link)) {
    }
    return end->complete ? end->size : 0;
}

void shim_message(struct end *end, uint8_t *bytes) {
    memcpy(bytes, end->message, end->size);
    free(end->message);
    end->message = NULL;
    end->complete = false;
}

int shim_state(const struct end *end) { return (int)end->link.state; }
uint32_t shim_peer(const struct end *end) { return end->link.peer; }
uint32_t shim_unacknowledged(const struct end *end) { return end->link.end - end->link.base; }
uint32_t shim_retransmits(const struct end *end) { return end->link.retransmits; }

size_t shim_encode_frame(uint8_t *frame, const uint8_t *body, size_t size) {
    memcpy(frame + FRAME_LEAD, body, size);
    return frame_encode(frame, size);
}

/* Returns the size of the body of the first good frame in these bytes, which is copied, or 0. */
size_t shim_decode_frame(uint8_t *body, const uint8_t *bytes, size_t count) {
    uint8_t *buffer = malloc(FRAME_BUFFER(FRAME_MAX_BODY));
    struct frame_reader reader;
    frame_reader_init(&reader, buffer, FRAME_BUFFER(FRAME_MAX_BODY));
    size_t size = 0;
    for (size_t i = 0; i < count && size == 0; i++) {
        size = frame_reader_take(&reader, bytes[i]);
    }
    memcpy(body, buffer, size);
    free(buffer);
    return size;
}

struct image {
    uint8_t *levels;
    unsigned columns;
};

static void take_row(void *context, unsigned row, const uint8_t *levels) {
    struct image *image = context;
    memcpy(image->levels + (size_t)row * image->columns, levels, image->columns);
}

/* Writes values of int8; the payload is copied to memory of its own size. */
bool shim_vp8(const uint8_t *payload, size_t size, unsigned columns, unsigned rows, int8_t *values) {
    struct vp8 *vp8 = malloc(sizeof *vp8);
    uint8_t *copy = malloc(size > 0 ? size : 1);
    memcpy(copy, payload, size);
    struct image image = {(uint8_t *)values, columns};
    const bool decoded = vp8_decode(vp8, copy, size, columns, rows, take_row, &image);
    for (size_t i = 0; i < (size_t)columns * rows; i++) {
        values[i] = vp8_value((uint8_t)values[i]);
    }
    free(copy);
    free(vp8);
    return decoded;
}

/* Copies a mask of a byte a pixel into one of two bits per pixel, of its own size. */
static uint8_t *packed(const uint8_t *labels, size_t pixels) {
    uint8_t *mask = calloc(MASK_BYTES(pixels, 1), 1);
    for (size_t i = 0; i < pixels; i++) {
        mask_set(mask, i, labels[i]);
    }
    return mask;
}

size_t shim_runs(const uint8_t *labels, unsigned rows, unsigned columns, uint8_t *out) {
    uint8_t *mask = packed(labels, (size_t)rows * columns);
    const size_t size = mask_runs(mask, (size_t)rows * columns, out, (size_t)rows * columns);
    free(mask);
    return size;
}

static void count_poll(void *context) { ++*(unsigned *)context; }

size_t shim_change(const uint8_t *labels, const uint8_t *previous, unsigned rows, unsigned columns, uint8_t *out) {
    const size_t pixels = (size_t)rows * columns;
    uint8_t *mask = packed(labels, pixels), *before = previous != NULL ? packed(previous, pixels) : NULL;
    uint8_t *scratch = malloc(MASK_SCRATCH(rows, columns)), *content = malloc(MASK_PAYLOAD(rows, columns));
    memset(scratch, 0xA5, MASK_SCRATCH(rows, columns));
    unsigned polls = 0;
    const size_t size = mask_change(mask, before, rows, columns, scratch, content, count_poll, &polls);
    if (size > 0 && polls < 3 * rows) {
        abort();
    }
    memcpy(out, content, size);
    free(mask);
    free(before);
    free(scratch);
    free(content);
    return size;
}

void shim_sha256(const uint8_t *bytes, size_t count, uint8_t *digest) {
    struct sha256 hash;
    sha256_start(&hash);
    sha256_add(&hash, bytes, count);
    sha256_finish(&hash, digest);
}

int shim_confidence(const int8_t *logits, unsigned rows, unsigned columns, uint32_t factor, int zero_point) {
    struct confidence *confidence = malloc(sizeof *confidence);
    confidence_start(confidence, columns, factor, zero_point);
    for (unsigned row = 0; row < rows; row++) {
        confidence_row(confidence, logits + (size_t)3 * row * columns);
    }
    const int result = confidence_finish(confidence);
    free(confidence);
    return result;
}
