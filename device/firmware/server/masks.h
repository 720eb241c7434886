/* The mask codecs: encoders of `runs` and `change`. See "Codecs" and "Mask codec" in docs/wire.md.
 *
 * A mask has two bits per pixel, low bits first, row after row: labels 0 to 3. */
#ifndef SERVER_MASKS_H
#define SERVER_MASKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MASK_RUNS = 1, MASK_CHANGE = 3, MASK_REACH = 4, MASK_NODES = 3400 /* of the trees, at most */ };

#define MASK_BYTES(rows, columns) (((rows) * (columns) + 3) / 4)

/* Bytes of the buffer for a payload of mask_change: an attempt may be longer than what comes of it. */
#define MASK_PAYLOAD(rows, columns) (MASK_BYTES(rows, columns) + 64)

/* Bytes of scratch memory that mask_change needs. */
#define MASK_SCRATCH(rows, columns) \
    (2 * ((rows) + 2 * MASK_REACH) * ((columns) + 2 * MASK_REACH) + 2 * MASK_NODES)

static inline unsigned mask_label(const uint8_t *mask, size_t pixel) {
    return mask[pixel / 4] >> 2 * (pixel % 4) & 3U;
}

static inline void mask_set(uint8_t *mask, size_t pixel, unsigned label) {
    const unsigned shift = 2 * (unsigned)(pixel % 4);
    mask[pixel / 4] = (uint8_t)((mask[pixel / 4] & ~(3U << shift)) | label << shift);
}

/* Writes the payload of a mask; returns its size, 0 if it does not fit. */
size_t mask_runs(const uint8_t *mask, size_t pixels, uint8_t *out, size_t size);

/* Called after each row of work or so, so that a busy board still acknowledges. */
typedef void mask_poll(void *context);

/* Writes the payload of a mask after another one (NULL if there is none); returns its size, which is at most
 * MASK_BYTES, and 0 if no pixel is labelled. */
size_t mask_change(const uint8_t *mask, const uint8_t *previous, unsigned rows, unsigned columns, uint8_t *scratch,
                   uint8_t *out, mask_poll *poll, void *context);

#endif
