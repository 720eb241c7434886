#include "vp8.h"

#include <string.h>

#include "vp8_tables.h"

enum { DC, TM, VE, HE, RD, VR, LD, VL, HD, HU };                /* modes, in the order of mode_probabilities */
enum { LUMA_AFTER_Y2, Y2, CHROMA, LUMA };                       /* kinds of blocks */
enum { HALF = 128, MAX_LEVEL = 63, MAX_STEP = 127, HEADER = 10, SLOT_Y2 = 8 };

static int clamp(int value, int low, int high) { return value < low ? low : value > high ? high : value; }
static uint8_t pixel(int value) { return (uint8_t)clamp(value, 0, 255); }

/* ---- section 7: the boolean decoder ---- */

static void start(struct vp8_reader *reader, const uint8_t *at, const uint8_t *end) {
    *reader = (struct vp8_reader){.at = at, .end = end, .range = 254, .bits = -8};
}

static unsigned get(struct vp8_reader *reader, unsigned probability) {
    if (reader->bits < 0) {
        reader->value <<= 8;
        if (reader->at < reader->end) {
            reader->value |= *reader->at++;
        } else {
            reader->beyond = true;
        }
        reader->bits += 8;
    }
    const uint32_t split = reader->range * probability >> 8; /* `range` is one less than in the RFC */
    const unsigned bit = reader->value >> reader->bits > split;
    if (bit) {
        reader->range -= split + 1;
        reader->value -= (split + 1) << reader->bits;
    } else {
        reader->range = split;
    }
    while (reader->range < 127) {
        reader->range = 2 * reader->range + 1;
        reader->bits--;
    }
    return bit;
}

static unsigned get_number(struct vp8_reader *reader, unsigned bits) {
    unsigned value = 0;
    for (; bits > 0; bits--) {
        value = value << 1 | get(reader, HALF);
    }
    return value;
}

static int get_signed(struct vp8_reader *reader, unsigned bits) {
    const int value = (int)get_number(reader, bits);
    return get(reader, HALF) ? -value : value;
}

/* A signed number after a bit that says whether there is one. */
static int get_optional(struct vp8_reader *reader, unsigned bits) {
    return get(reader, HALF) ? get_signed(reader, bits) : 0;
}

/* ---- section 9: the header ---- */

struct header {
    bool has_segments, is_absolute, has_deltas;
    int steps[4], levels[4]; /* of segments */
    int level, sharpness;
    int key_frame_delta, modes_delta;
};

static void read_segments(struct vp8 *vp8, struct header *header) {
    struct vp8_reader *reader = &vp8->header;
    header->has_segments = get(reader, HALF);
    vp8->has_segment_map = header->has_segments && get(reader, HALF);
    memset(vp8->segment_probabilities, 255, sizeof vp8->segment_probabilities);
    if (!header->has_segments) {
        return;
    }
    if (get(reader, HALF)) {
        header->is_absolute = get(reader, HALF);
        for (unsigned i = 0; i < 4; i++) {
            header->steps[i] = get_optional(reader, 7);
        }
        for (unsigned i = 0; i < 4; i++) {
            header->levels[i] = get_optional(reader, 6);
        }
    }
    for (unsigned i = 0; i < 3 && vp8->has_segment_map; i++) {
        vp8->segment_probabilities[i] = (uint8_t)(get(reader, HALF) ? get_number(reader, 8) : 255);
    }
}

static void read_filter(struct vp8 *vp8, struct header *header) {
    struct vp8_reader *reader = &vp8->header;
    vp8->simple_filter = get(reader, HALF);
    header->level = (int)get_number(reader, 6);
    header->sharpness = (int)get_number(reader, 3);
    header->has_deltas = get(reader, HALF);
    if (header->has_deltas && get(reader, HALF)) {
        for (unsigned i = 0; i < 8; i++) { /* four frames that are referred to, four groups of modes */
            const int delta = get_optional(reader, 6);
            header->key_frame_delta = i == 0 ? delta : header->key_frame_delta;
            header->modes_delta = i == 4 ? delta : header->modes_delta;
        }
    }
}

static struct vp8_filter make_filter(const struct header *header, unsigned segment, bool has_modes) {
    int level = header->level;
    if (header->has_segments) {
        level = header->levels[segment] + (header->is_absolute ? 0 : header->level);
    }
    if (header->has_deltas) {
        level += header->key_frame_delta + (has_modes ? header->modes_delta : 0);
    }
    level = header->level == 0 ? 0 : clamp(level, 0, MAX_LEVEL);
    int interior = level >> (header->sharpness > 4 ? 2 : header->sharpness > 0 ? 1 : 0);
    if (header->sharpness > 0) {
        interior = clamp(interior, 0, 9 - header->sharpness);
    }
    interior = interior < 1 ? 1 : interior;
    return (struct vp8_filter){
        .limit = (uint8_t)(level > 0 ? 2 * level + interior : 0),
        .interior = (uint8_t)interior,
        .variance = (uint8_t)(level >= 40 ? 2 : level >= 15 ? 1 : 0),
        .inner = has_modes,
    };
}

static void read_steps(struct vp8 *vp8, const struct header *header) {
    struct vp8_reader *reader = &vp8->header;
    const int base = (int)get_number(reader, 7), y_dc = get_optional(reader, 4), y2_dc = get_optional(reader, 4);
    const int y2_ac = get_optional(reader, 4);
    (void)get_optional(reader, 4); /* of chroma */
    (void)get_optional(reader, 4);
    for (unsigned i = 0; i < 4; i++) {
        int step = base;
        if (header->has_segments) {
            step = header->steps[i] + (header->is_absolute ? 0 : base);
        }
        struct vp8_segment *segment = &vp8->segments[i];
        const unsigned coarse = ac_steps[clamp(step + y2_ac, 0, MAX_STEP)] * 155U / 100U;
        segment->y_dc = dc_steps[clamp(step + y_dc, 0, MAX_STEP)];
        segment->y_ac = ac_steps[clamp(step, 0, MAX_STEP)];
        segment->y2_dc = (uint16_t)(2U * dc_steps[clamp(step + y2_dc, 0, MAX_STEP)]);
        segment->y2_ac = (uint16_t)(coarse < 8 ? 8 : coarse);
        segment->filters[0] = make_filter(header, i, false);
        segment->filters[1] = make_filter(header, i, true);
    }
}

static void read_tokens(struct vp8 *vp8) {
    for (unsigned i = 0; i < sizeof vp8->tokens; i++) {
        const bool replaced = get(&vp8->header, token_updates[i]);
        vp8->tokens[i] = (uint8_t)(replaced ? get_number(&vp8->header, 8) : token_probabilities[i]);
    }
}

/* ---- section 13: coefficients ---- */

static unsigned get_large(struct vp8_reader *reader, const uint8_t *p) {
    static const uint8_t extra[4][12] = {
        {173, 148, 140, 0},
        {176, 155, 140, 135, 0},
        {180, 157, 141, 134, 130, 0},
        {254, 254, 243, 230, 196, 177, 153, 140, 133, 130, 129, 0},
    };
    if (!get(reader, p[3])) {
        return !get(reader, p[4]) ? 2 : 3 + get(reader, p[5]);
    }
    if (!get(reader, p[6])) {
        if (!get(reader, p[7])) {
            return 5 + get(reader, 159);
        }
        const unsigned high = get(reader, 165);
        return 7 + 2 * high + get(reader, 145);
    }
    const unsigned high = get(reader, p[8]), category = 2 * high + get(reader, p[9 + high]);
    unsigned value = 0;
    for (const uint8_t *at = extra[category]; *at > 0; at++) {
        value = 2 * value + get(reader, *at);
    }
    return value + 3 + (8U << category);
}

/* Reads a block from its coefficient `first` on; returns the place after the last that is not 0. */
static unsigned get_block(const struct vp8 *vp8, struct vp8_reader *reader, unsigned kind, unsigned context,
                          unsigned first, const uint16_t steps[2], int16_t *out) {
    static const uint8_t zigzag[16] = {0, 1, 4, 8, 5, 2, 3, 6, 9, 12, 13, 10, 7, 11, 14, 15};
    static const uint8_t bands[17] = {0, 1, 2, 3, 6, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 7, 0};
    const uint8_t *of_kind = vp8->tokens + kind * 264;
    const uint8_t *p = of_kind + bands[first] * 33 + context * 11;
    for (unsigned n = first; n < 16; n++) {
        if (!get(reader, p[0])) {
            return n;
        }
        while (!get(reader, p[1])) {
            n++;
            if (n == 16) {
                return 16;
            }
            p = of_kind + bands[n] * 33;
        }
        const unsigned value = get(reader, p[2]) ? get_large(reader, p) : 1;
        p = of_kind + bands[n + 1] * 33 + (value > 1 ? 22 : 11);
        const int coefficient = get(reader, HALF) ? -(int)value : (int)value;
        const uint32_t product = (uint32_t)(coefficient * (int)steps[n > 0]);
        out[zigzag[n]] = (int16_t)(uint16_t)product; /* 16 bits, like libwebp */
    }
    return 16;
}

/* Section 14.3: the transform of the DC of the 16 blocks. */
static void put_dc(int16_t coefficients[16][16], const int16_t *in) {
    int half[16];
    for (unsigned i = 0; i < 4; i++) {
        const int a = in[i] + in[12 + i], b = in[4 + i] + in[8 + i], c = in[4 + i] - in[8 + i], d = in[i] - in[12 + i];
        half[i] = a + b;
        half[4 + i] = c + d;
        half[8 + i] = a - b;
        half[12 + i] = d - c;
    }
    for (unsigned i = 0; i < 4; i++) {
        const int *row = half + 4 * i;
        const int a = row[0] + row[3] + 3, b = row[1] + row[2], c = row[1] - row[2], d = row[0] - row[3] + 3;
        coefficients[4 * i][0] = (int16_t)((a + b) >> 3);
        coefficients[4 * i + 1][0] = (int16_t)((d + c) >> 3);
        coefficients[4 * i + 2][0] = (int16_t)((a - b) >> 3);
        coefficients[4 * i + 3][0] = (int16_t)((d - c) >> 3);
    }
}

/* Reads the coefficients of a macroblock; returns whether any is not 0. */
static bool get_coefficients(struct vp8 *vp8, struct vp8_reader *reader, const struct vp8_segment *segment,
                             unsigned column, bool has_modes) {
    uint8_t *above = vp8->used_above[column], *left = vp8->used_left;
    const uint16_t steps[2] = {segment->y_dc, segment->y_ac}, steps2[2] = {segment->y2_dc, segment->y2_ac};
    const uint16_t of_chroma[2] = {1, 1}; /* only whether a coefficient is 0 matters */
    unsigned kind = LUMA;
    bool any = false;
    if (!has_modes) {
        int16_t dc[16] = {0};
        const unsigned context = above[SLOT_Y2] + (unsigned)left[SLOT_Y2];
        above[SLOT_Y2] = left[SLOT_Y2] = get_block(vp8, reader, Y2, context, 0, steps2, dc) > 0;
        put_dc(vp8->coefficients, dc);
        kind = LUMA_AFTER_Y2;
    }
    const unsigned first = kind == LUMA ? 0 : 1;
    for (unsigned block = 0; block < 16; block++) {
        uint8_t *up = &above[block % 4], *side = &left[block / 4];
        const unsigned context = *up + (unsigned)*side;
        const unsigned end = get_block(vp8, reader, kind, context, first, steps, vp8->coefficients[block]);
        *up = *side = end > first;
        any = any || end > 1 || vp8->coefficients[block][0] != 0;
    }
    for (unsigned block = 0; block < 8; block++) {
        int16_t ignored[16] = {0};
        const unsigned plane = 4 + block / 4 * 2;
        uint8_t *up = &above[plane + block % 2], *side = &left[plane + block / 2 % 2];
        const unsigned end = get_block(vp8, reader, CHROMA, *up + (unsigned)*side, 0, of_chroma, ignored);
        *up = *side = end > 0;
        any = any || end > 0;
    }
    return any;
}

/* A damaged payload has values for which 32 bits are too few. */
static int scaled(int value, int factor) { return (int)((int64_t)value * factor >> 16); }

/* Section 14.4: adds the inverse transform of a block to its prediction. */
static void add_residual(const int16_t *in, uint8_t *out) {
    int half[16];
    for (unsigned i = 0; i < 4; i++) {
        const int a = in[i] + in[8 + i], b = in[i] - in[8 + i];
        const int c = scaled(in[4 + i], 35468) - (scaled(in[12 + i], 20091) + in[12 + i]);
        const int d = scaled(in[4 + i], 20091) + in[4 + i] + scaled(in[12 + i], 35468);
        half[4 * i] = a + d;
        half[4 * i + 1] = b + c;
        half[4 * i + 2] = b - c;
        half[4 * i + 3] = a - d;
    }
    for (unsigned i = 0; i < 4; i++) {
        const int *at = half + i;
        const int a = at[0] + 4 + at[8], b = at[0] + 4 - at[8];
        const int c = scaled(at[4], 35468) - (scaled(at[12], 20091) + at[12]);
        const int d = scaled(at[4], 20091) + at[4] + scaled(at[12], 35468);
        const int sums[4] = {a + d, b + c, b - c, a - d};
        for (unsigned column = 0; column < 4; column++) {
            out[column] = pixel(out[column] + (sums[column] >> 3));
        }
        out += VP8_STRIDE;
    }
}

/* ---- section 12: prediction ---- */

static void predict_tm(uint8_t *out, unsigned side) {
    const uint8_t *top = out - VP8_STRIDE;
    const int corner = top[-1];
    for (unsigned row = 0; row < side; row++, out += VP8_STRIDE) {
        const int base = out[-1] - corner;
        for (unsigned column = 0; column < side; column++) {
            out[column] = pixel(base + top[column]);
        }
    }
}

static void predict_16(uint8_t *out, unsigned mode, bool has_left, bool has_top) {
    const uint8_t *top = out - VP8_STRIDE;
    if (mode == TM) {
        predict_tm(out, 16);
        return;
    }
    unsigned sum = 0, count = 0;
    for (unsigned i = 0; i < 16; i++) {
        sum += (has_left ? out[(int)(i * VP8_STRIDE) - 1] : 0U) + (has_top ? top[i] : 0U);
        count += has_left + has_top;
    }
    const uint8_t mean = (uint8_t)(count > 0 ? (sum + count / 2) / count : HALF);
    for (unsigned row = 0; row < 16; row++, out += VP8_STRIDE) {
        for (unsigned column = 0; column < 16; column++) {
            out[column] = mode == VE ? top[column] : mode == HE ? out[-1] : mean;
        }
    }
}

static unsigned mean2(unsigned a, unsigned b) { return (a + b + 1) / 2; }
static unsigned mean3(unsigned a, unsigned b, unsigned c) { return (a + 2 * b + c + 2) / 4; }

/* Predicts 4 x 4 pixels. `edge` are the 13 around them: from the left at the bottom to the corner (4) and on to the
 * right at the top. Along each direction a mode gives equal pixels, each a mean of two or three of the edge. */
static void predict_4(uint8_t *out, unsigned mode) {
    /* Each pixel is mean3 around a place of the edge, or mean2 of it and the one before (+ 16). */
    static const uint8_t places[6][16] = {
        [RD - RD] = {4, 5, 6, 7, 3, 4, 5, 6, 2, 3, 4, 5, 1, 2, 3, 4},
        [VR - RD] = {21, 22, 23, 24, 4, 5, 6, 7, 3, 21, 22, 23, 2, 4, 5, 6},
        [LD - RD] = {6, 7, 8, 9, 7, 8, 9, 10, 8, 9, 10, 11, 9, 10, 11, 12},
        [VL - RD] = {22, 23, 24, 25, 6, 7, 8, 9, 23, 24, 25, 10, 7, 8, 9, 11},
        [HD - RD] = {20, 4, 5, 6, 19, 3, 20, 4, 18, 2, 19, 3, 17, 1, 18, 2},
        [HU - RD] = {19, 2, 18, 1, 18, 1, 17, 0, 17, 0, 32, 32, 32, 32, 32, 32},
    };
    uint8_t edge[17] = {0};
    for (unsigned i = 0; i < 4; i++) {
        edge[i] = out[(int)((3 - i) * VP8_STRIDE) - 1];
    }
    memcpy(edge + 4, out - VP8_STRIDE - 1, 9);
    edge[13] = edge[12];
    unsigned sum = 4;
    for (unsigned i = 0; i < 4; i++) {
        sum += edge[i] + (unsigned)edge[5 + i];
    }
    if (mode == TM) {
        predict_tm(out, 4);
        return;
    }
    for (unsigned i = 0; i < 16; i++) {
        const unsigned row = i / 4, column = i % 4;
        unsigned place = 0, value = sum / 8;
        if (mode == VE) {
            place = 5 + column;
        } else if (mode == HE) {
            place = 3 - row;
        } else if (mode != DC) {
            place = places[mode - RD][i];
        }
        if (mode != DC) {
            const unsigned at = place % 16, before = edge[at > 0 ? at - 1 : 0]; /* the lowest pixel is repeated */
            value = place == 32 ? edge[0] : place < 16 ? mean3(before, edge[at], edge[at + 1]) : mean2(before, edge[at]);
        }
        out[row * VP8_STRIDE + column] = (uint8_t)value;
    }
}

/* ---- section 15: the loop filter ---- */

static int difference(int a, int b) { return a < b ? b - a : a - b; }
static int to_char(int value) { return clamp(value, -128, 127); }

/* Filters the 16 pixels of an edge: `across` leads over it, `along` to the next pixel. */
static void filter_edge(uint8_t *at, int across, int along, const struct vp8_filter *filter, int limit, bool simple,
                        bool inner) {
    for (unsigned i = 0; i < 16; i++, at += along) {
        const int p1 = at[-2 * across], p0 = at[-across], q0 = at[0], q1 = at[across];
        if (4 * difference(p0, q0) + difference(p1, q1) > 2 * limit + 1) {
            continue;
        }
        const int common = to_char(p1 - q1);
        bool varies = true;
        if (!simple) {
            const int p3 = at[-4 * across], p2 = at[-3 * across], q2 = at[2 * across], q3 = at[3 * across];
            const int interior = filter->interior;
            if (difference(p3, p2) > interior || difference(p2, p1) > interior || difference(p1, p0) > interior ||
                difference(q3, q2) > interior || difference(q2, q1) > interior || difference(q1, q0) > interior) {
                continue;
            }
            varies = difference(p1, p0) > filter->variance || difference(q1, q0) > filter->variance;
            if (!varies && !inner) {
                const int a = to_char(3 * (q0 - p0) + common);
                const int a1 = (27 * a + 63) >> 7, a2 = (18 * a + 63) >> 7, a3 = (9 * a + 63) >> 7;
                at[-3 * across] = pixel(p2 + a3);
                at[-2 * across] = pixel(p1 + a2);
                at[-across] = pixel(p0 + a1);
                at[0] = pixel(q0 - a1);
                at[across] = pixel(q1 - a2);
                at[2 * across] = pixel(q2 - a3);
                continue;
            }
        }
        const int a = 3 * (q0 - p0) + (varies ? common : 0);
        const int a1 = clamp((a + 4) >> 3, -16, 15), a2 = clamp((a + 3) >> 3, -16, 15);
        at[-across] = pixel(p0 + a2);
        at[0] = pixel(q0 - a1);
        if (!varies) {
            const int a3 = (a1 + 1) >> 1;
            at[-2 * across] = pixel(p1 + a3);
            at[across] = pixel(q1 - a3);
        }
    }
}

static void filter_row(struct vp8 *vp8, unsigned row) {
    const int stride = VP8_COLUMNS;
    for (unsigned column = 0; column < vp8->blocks; column++) {
        const struct vp8_filter *filter = &vp8->filters[column];
        uint8_t *at = vp8->lines + VP8_MARGIN * VP8_COLUMNS + 16 * column;
        const bool simple = vp8->simple_filter;
        if (filter->limit == 0) {
            continue;
        }
        if (column > 0) {
            filter_edge(at, 1, stride, filter, filter->limit + 4, simple, false);
        }
        for (int i = 4; i < 16 && filter->inner; i += 4) {
            filter_edge(at + i, 1, stride, filter, filter->limit, simple, true);
        }
        if (row > 0) {
            filter_edge(at, stride, 1, filter, filter->limit + 4, simple, false);
        }
        for (int i = 4; i < 16 && filter->inner; i += 4) {
            filter_edge(at + i * stride, stride, 1, filter, filter->limit, simple, true);
        }
    }
}

/* ---- macroblocks ---- */

struct macroblock {
    unsigned segment;
    bool skip, has_modes;
    uint8_t modes[16];
};

static struct macroblock get_modes(struct vp8 *vp8, unsigned column) {
    static const int8_t tree[18] = {-DC, 1, -TM, 2, -VE, 3, 4, 6, -HE, 5, -RD, -VR, -LD, 7, -VL, 8, -HD, -HU};
    struct vp8_reader *reader = &vp8->header;
    uint8_t *above = vp8->modes_above + 4 * column, *left = vp8->modes_left;
    struct macroblock block = {0};
    if (vp8->has_segment_map) {
        const unsigned high = get(reader, vp8->segment_probabilities[0]);
        block.segment = 2 * high + get(reader, vp8->segment_probabilities[1 + high]);
    }
    block.skip = vp8->has_skip && get(reader, vp8->skip_probability);
    block.has_modes = !get(reader, 145);
    if (!block.has_modes) {
        uint8_t mode;
        if (get(reader, 156)) {
            mode = get(reader, 128) ? TM : HE;
        } else {
            mode = get(reader, 163) ? VE : DC;
        }
        memset(above, mode, 4);
        memset(left, mode, 4);
        memset(block.modes, mode, 16);
    }
    for (unsigned i = 0; i < 16 && block.has_modes; i++) {
        const uint8_t *p = mode_probabilities[above[i % 4]][left[i / 4]];
        int node = tree[get(reader, p[0])];
        while (node > 0) {
            node = tree[2 * node + (int)get(reader, p[node])];
        }
        block.modes[i] = above[i % 4] = left[i / 4] = (uint8_t)-node;
    }
    if (get(reader, 142) && get(reader, 114)) { /* the mode of chroma */
        (void)get(reader, 183);
    }
    return block;
}

/* Fills the edges of the macroblock at work, which holds the one to its left. */
static void put_edges(struct vp8 *vp8, unsigned row, unsigned column) {
    uint8_t *top = vp8->work + 1;
    for (unsigned i = 0; i < 17; i++) {
        uint8_t *line = vp8->work + i * VP8_STRIDE;
        line[0] = (uint8_t)(column > 0 ? line[16] : i > 0 || row > 0 ? 129 : 127);
    }
    if (row == 0) {
        memset(top, 127, 20);
        return;
    }
    memcpy(top, vp8->row_above + 16 * column, 16);
    if (column + 1 < vp8->blocks) {
        memcpy(top + 16, vp8->row_above + 16 * column + 16, 4);
    } else {
        memset(top + 16, top[15], 4);
    }
}

static void predict_macroblock(struct vp8 *vp8, const struct macroblock *block, unsigned row, unsigned column,
                               bool has_residual) {
    uint8_t *first = vp8->work + VP8_STRIDE + 1;
    put_edges(vp8, row, column);
    if (!block->has_modes) {
        predict_16(first, block->modes[0], column > 0, row > 0);
    }
    for (unsigned i = 0; i < 16; i++) {
        uint8_t *at = first + i / 4 * 4 * VP8_STRIDE + i % 4 * 4;
        if (block->has_modes) {
            if (i > 3 && i % 4 == 3) { /* to the right there is no pixel yet: those above the macroblock serve */
                memcpy(at - VP8_STRIDE + 4, vp8->work + 17, 4);
            }
            predict_4(at, block->modes[i]);
        }
        if (has_residual) {
            add_residual(vp8->coefficients[i], at);
        }
    }
}

static bool decode_row(struct vp8 *vp8, struct vp8_reader *reader, unsigned row) {
    uint8_t *lines = vp8->lines + VP8_MARGIN * VP8_COLUMNS;
    memset(vp8->modes_left, DC, sizeof vp8->modes_left);
    memset(vp8->used_left, 0, sizeof vp8->used_left);
    for (unsigned column = 0; column < vp8->blocks; column++) {
        const struct macroblock block = get_modes(vp8, column);
        const struct vp8_segment *segment = &vp8->segments[block.segment];
        bool has_residual = false;
        if (block.skip) {
            memset(vp8->used_left, 0, SLOT_Y2 + !block.has_modes);
            memset(vp8->used_above[column], 0, SLOT_Y2 + !block.has_modes);
        } else {
            memset(vp8->coefficients, 0, sizeof vp8->coefficients);
            has_residual = get_coefficients(vp8, reader, segment, column, block.has_modes);
        }
        vp8->filters[column] = segment->filters[block.has_modes];
        vp8->filters[column].inner = block.has_modes || has_residual;
        predict_macroblock(vp8, &block, row, column, has_residual);
        for (unsigned i = 0; i < 16; i++) {
            memcpy(lines + i * VP8_COLUMNS + 16 * column, vp8->work + (i + 1) * VP8_STRIDE + 1, 16);
        }
    }
    return !vp8->header.beyond && !reader->beyond;
}

/* Returns the bytes of the token partitions that begin at `at`, in `readers`; false if the last is empty. */
static bool open_partitions(struct vp8_reader readers[8], unsigned count, const uint8_t *at, const uint8_t *end) {
    if ((size_t)(end - at) < 3U * (count - 1)) {
        return false;
    }
    const uint8_t *sizes = at;
    at += 3 * (count - 1);
    for (unsigned i = 0; i < count; i++, sizes += 3) {
        size_t size = (size_t)(end - at);
        if (i + 1 < count) {
            const size_t stated = sizes[0] | (size_t)sizes[1] << 8 | (size_t)sizes[2] << 16;
            size = stated < size ? stated : size;
        }
        start(&readers[i], at, at + size);
        at += size;
        if (i + 1 == count && size == 0) {
            return false;
        }
    }
    return true;
}

bool vp8_decode(struct vp8 *vp8, const uint8_t *payload, size_t size, unsigned columns, unsigned rows, vp8_row *take,
                void *context) {
    if (size < HEADER || (payload[0] & 1) || (payload[0] >> 1 & 7) > 3 || !(payload[0] & 16) || payload[3] != 0x9D ||
        payload[4] != 1 || payload[5] != 0x2A || columns == 0 || columns > VP8_COLUMNS || rows == 0) {
        return false;
    }
    const size_t first = payload[0] >> 5 | (size_t)payload[1] << 3 | (size_t)payload[2] << 11;
    const unsigned stated_columns = payload[6] | (payload[7] & 0x3FU) << 8;
    const unsigned stated_rows = payload[8] | (payload[9] & 0x3FU) << 8;
    if (first > size - HEADER || stated_columns != columns || stated_rows != rows) {
        return false;
    }
    memset(vp8, 0, sizeof *vp8);
    vp8->columns = columns;
    vp8->rows = rows;
    vp8->blocks = (columns + 15) / 16;
    struct vp8_reader *reader = &vp8->header, partitions[8];
    struct header header = {0};
    start(reader, payload + HEADER, payload + HEADER + first);
    (void)get_number(reader, 2); /* colour space; whether pixels need no clamp */
    read_segments(vp8, &header);
    read_filter(vp8, &header);
    const unsigned count = 1U << get_number(reader, 2);
    if (!open_partitions(partitions, count, payload + HEADER + first, payload + size)) {
        return false;
    }
    read_steps(vp8, &header);
    (void)get(reader, HALF); /* whether the next frame keeps the probabilities */
    read_tokens(vp8);
    vp8->has_skip = get(reader, HALF);
    vp8->skip_probability = (uint8_t)(vp8->has_skip ? get_number(reader, 8) : 0);
    const unsigned block_rows = (rows + 15) / 16;
    unsigned done = 0;
    for (unsigned row = 0; row < block_rows; row++) {
        if (!decode_row(vp8, &partitions[row & (count - 1)], row)) {
            return false;
        }
        uint8_t *last = vp8->lines + (VP8_MARGIN + 15) * VP8_COLUMNS;
        memcpy(vp8->row_above, last, VP8_COLUMNS);
        filter_row(vp8, row);
        /* The next row's filter may still change the last lines of this one. */
        const unsigned final = row + 1 < block_rows ? 16 * row + 16 - VP8_MARGIN : rows;
        for (; done < final && done < rows; done++) {
            take(context, done, vp8->lines + (done + VP8_MARGIN - 16 * row) * VP8_COLUMNS);
        }
        memcpy(vp8->lines, vp8->lines + 16 * VP8_COLUMNS, VP8_MARGIN * VP8_COLUMNS);
    }
    return true;
}
