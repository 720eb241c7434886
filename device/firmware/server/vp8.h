/* The grey levels of a VP8 key frame: "Lossy images" in docs/wire.md, after RFC 6386.
 *
 * Chroma is parsed, since the tokens of a macroblock lie in one stream, and otherwise ignored. */
#ifndef SERVER_VP8_H
#define SERVER_VP8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef VP8_COLUMNS
#define VP8_COLUMNS 192 /* at most, a multiple of 16 */
#endif

enum {
    VP8_BLOCKS = VP8_COLUMNS / 16,
    VP8_MARGIN = 4, /* rows above a row of macroblocks that its filter still needs */
    VP8_STRIDE = 24 /* of the macroblock at work: one to the left, 16, and four to the right above */
};

struct vp8_reader {
    const uint8_t *at, *end;
    uint32_t value, range; /* `bits` + 8 bits of the stream are known */
    int bits;
    bool beyond; /* more bits were read than there are */
};

struct vp8_filter {
    uint8_t limit, interior, variance; /* limit 0: the macroblock is not filtered */
    bool inner;
};

struct vp8_segment {
    uint16_t y_dc, y_ac, y2_dc, y2_ac;
    struct vp8_filter filters[2]; /* of macroblocks with one mode, and with sixteen */
};

struct vp8 {
    unsigned columns, rows, blocks; /* macroblocks in a row */
    struct vp8_reader header;
    struct vp8_segment segments[4];
    uint8_t segment_probabilities[3], skip_probability;
    bool has_segment_map, has_skip, simple_filter;
    uint8_t tokens[1056];
    /* Of the macroblocks above and of the one to the left. */
    uint8_t modes_above[4 * VP8_BLOCKS], modes_left[4];
    uint8_t used_above[VP8_BLOCKS][9], used_left[9]; /* which blocks have coefficients: 4 Y, 2 U, 2 V, Y2 */
    uint8_t row_above[VP8_COLUMNS];                  /* before it was filtered */
    struct vp8_filter filters[VP8_BLOCKS];
    int16_t coefficients[16][16];
    uint8_t work[17 * VP8_STRIDE];
    uint8_t lines[(16 + VP8_MARGIN) * VP8_COLUMNS];
};

/* Takes a row of `columns` grey levels, the next one of the image. */
typedef void vp8_row(void *context, unsigned row, const uint8_t *levels);

/* Decodes an image of this size; returns false if the payload holds none, after some rows perhaps. */
bool vp8_decode(struct vp8 *vp8, const uint8_t *payload, size_t size, unsigned columns, unsigned rows, vp8_row *take,
                void *context);

/* The value of a pixel that docs/wire.md defines for a level: red as libwebp computes it, minus 128. */
static inline int8_t vp8_value(uint8_t level) {
    const int red = (int)((19077U * level >> 8) - 1160U) >> 6;
    return (int8_t)((red < 0 ? 0 : red > 255 ? 255 : red) - 128);
}

#endif
