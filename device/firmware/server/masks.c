#include "masks.h"

#include <string.h>

enum {
    REGIONS = 3,
    CLASSES = 4,
    COUNTS = 4,
    ALONE = 1, /* of 32768: the probability that there is no previous mask */
    LEAF = 0x8000,
    LEAST = 1 << 24,
    POLLED = 256, /* pixels between two calls of `poll` */
    /* The bits of a pixel's first byte are its six planes; these are the bits of its second. */
    PREDICTED = 1,
    OPEN = 2,
    CLOSE = 4, /* all of the 7 x 7 pixels around are predicted to be equal */
    CHANGED = 8,
    CODED = 16,
    LARGER = 32
};

extern const uint8_t mask_tables[], mask_tables_end[];

size_t mask_runs(const uint8_t *mask, size_t pixels, uint8_t *out, size_t size) {
    size_t written = 0;
    for (size_t pixel = 0; pixel < pixels;) {
        const unsigned label = mask_label(mask, pixel);
        size_t length = 1;
        while (pixel + length < pixels && mask_label(mask, pixel + length) == label) {
            length++;
        }
        pixel += length;
        size_t value = (length - 1) * 4 + label;
        for (bool more = true; more; value >>= 7) {
            if (written == size) {
                return 0;
            }
            more = value > 0x7F;
            out[written++] = (uint8_t)((value & 0x7F) | (more ? 0x80 : 0));
        }
    }
    return written;
}

/* ---- the range coder ---- */

struct coder {
    uint64_t low;
    uint32_t range;
    uint8_t *out;
    size_t count, size; /* written, and of `out`: what is beyond is counted, not written */
};

static void shift(struct coder *coder) {
    if (coder->low > UINT32_MAX) {
        size_t at = coder->count < coder->size ? coder->count : coder->size;
        while (at > 0 && ++coder->out[at - 1] == 0) {
            at--;
        }
        coder->low &= UINT32_MAX;
    }
    while (coder->range < LEAST) {
        if (coder->count < coder->size) {
            coder->out[coder->count] = (uint8_t)(coder->low >> 24);
        }
        coder->count++;
        coder->low = coder->low << 8 & UINT32_MAX;
        coder->range <<= 8;
    }
}

static void code_bit(struct coder *coder, bool bit, unsigned probability) {
    const uint32_t bound = (coder->range >> 15) * probability;
    if (bit) {
        coder->range = bound;
    } else {
        coder->low += bound;
        coder->range -= bound;
    }
    shift(coder);
}

static void code_number(struct coder *coder, uint32_t value, uint32_t count) {
    coder->range /= count;
    coder->low += (uint64_t)coder->range * value;
    shift(coder);
}

static size_t finish(struct coder *coder) {
    const uint64_t last = coder->low + coder->range - 1;
    for (int bits = 32; bits >= 0; bits -= 8) {
        const uint64_t value = last >> bits << bits;
        if (value >= coder->low) {
            coder->low = value;
            break;
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        coder->range = LEAST - 1;
        shift(coder);
    }
    if (coder->count > coder->size) {
        return coder->count;
    }
    while (coder->count > 0 && coder->out[coder->count - 1] == 0) {
        coder->count--;
    }
    if (coder->count == 0) {
        coder->out[coder->count++] = 0;
    }
    return coder->count;
}

/* ---- the context model ---- */

struct grid {
    unsigned rows, columns, stride;
    size_t size;
    uint8_t *planes, *marks; /* a byte a pixel, with MASK_REACH pixels around */
    uint8_t *right;          /* of each node: how far it is to the branch for 1, as u16 */
    mask_poll *poll;
    void *context;
};

static unsigned word(const uint8_t *at) { return at[0] | (unsigned)at[1] << 8; }

static size_t first_pixel(const struct grid *grid) { return MASK_REACH * grid->stride + MASK_REACH; }

/* Writes the three regions of a mask into the planes from bit `plane` on. */
static void split(const struct grid *grid, const uint8_t *mask, unsigned plane) {
    static const uint8_t regions[4] = {0, 3, 1, 7}; /* of background, core, edema and enhancing: WT, TC, ET */
    size_t pixel = 0;
    for (unsigned row = 0; row < grid->rows; row++) {
        uint8_t *at = grid->planes + first_pixel(grid) + row * grid->stride;
        for (unsigned column = 0; column < grid->columns; column++) {
            *at = (uint8_t)(*at | regions[mask_label(mask, pixel++)] << plane);
            at++;
        }
        grid->poll(grid->context);
    }
}

/* Returns where the subtree of a node ends, and notes for each node in it where the branch for 1 begins. The
 * trees are in preorder: a stack of the nodes whose branch for 1 is still to come. */
static size_t index_tree(const struct grid *grid, const uint8_t *nodes, size_t root) {
    uint16_t waiting[64];
    unsigned depth = 0;
    for (size_t node = root;; node++) {
        if (word(nodes + 2 * node) < LEAF) {
            waiting[depth++ & 63] = (uint16_t)node;
            continue;
        }
        if (depth == 0) {
            return node + 1;
        }
        const size_t parent = waiting[--depth & 63];
        grid->right[2 * parent] = (uint8_t)(node + 1);
        grid->right[2 * parent + 1] = (uint8_t)((node + 1) >> 8);
    }
}

/* Marks what is predicted of a region, within the larger one, and which pixels that leaves open. */
static void predict(const struct grid *grid, unsigned region) {
    for (size_t i = 0; i < grid->size; i++) {
        const size_t row = i / grid->stride, column = i % grid->stride;
        if (column == 0) {
            grid->poll(grid->context);
        }
        const bool inside = row - MASK_REACH < grid->rows && column - MASK_REACH < grid->columns;
        const bool larger = inside && (region == 0 || (grid->planes[i] >> (region - 1) & 1));
        const bool predicted = larger && (grid->planes[i] >> (REGIONS + region) & 1);
        grid->marks[i] = (uint8_t)((predicted ? PREDICTED : 0) | (larger ? LARGER : 0));
    }
    for (unsigned row = 0; row < grid->rows; row++) {
        const size_t start = first_pixel(grid) + row * grid->stride;
        unsigned columns[7]; /* predicted pixels of the last seven columns: 3 rows low, 7 rows high */
        unsigned near = 0, far = 0;
        for (unsigned i = 0; i < 7; i++) {
            columns[i] = 0;
        }
        for (unsigned column = 0; column < grid->columns + 3; column++) {
            unsigned low = 0, high = 0; /* of the column three to the right of the pixel */
            for (int down = -3; down <= 3; down++) {
                const uint8_t *at = grid->marks + start + column + down * (int)grid->stride;
                const unsigned one = *at & PREDICTED;
                high += one;
                low += down >= -1 && down <= 1 ? one : 0;
            }
            far += high - (columns[column % 7] >> 8);
            columns[column % 7] = low | high << 8;
            if (column < 3) {
                continue;
            }
            near = 0;
            for (unsigned i = 2; i <= 4; i++) {
                near += columns[(column + 7 - i) % 7] & 0xFF;
            }
            uint8_t *mark = grid->marks + start + column - 3;
            if (near > 0 && near < 9) {
                *mark |= OPEN;
            }
            if (far == 0 || far == 49) {
                *mark |= CLOSE;
            }
        }
        grid->poll(grid->context);
    }
}

/* The class of a pixel of the larger region that is not open, else CLASSES. */
static unsigned class_of(unsigned mark) {
    if ((mark & OPEN) || !(mark & LARGER)) {
        return CLASSES;
    }
    return (mark & PREDICTED ? 2 : 0) + (mark & CLOSE ? 1 : 0);
}

/* Marks the pixels that have changed, and those that are coded because they are open or one before them has. */
static void mark_changes(const struct grid *grid, unsigned region) {
    for (unsigned row = 0; row < grid->rows; row++) {
        const size_t start = first_pixel(grid) + row * grid->stride;
        for (size_t i = start; i < start + grid->columns; i++) {
            uint8_t *mark = &grid->marks[i];
            if (!(*mark & LARGER)) {
                continue;
            }
            const unsigned before = mark[-1] | mark[-(int)grid->stride - 1] | mark[-(int)grid->stride] |
                                    mark[-(int)grid->stride + 1];
            if ((*mark & OPEN) || (before & CHANGED)) {
                *mark |= CODED;
            }
            if ((grid->planes[i] >> region & 1) != (*mark & PREDICTED)) {
                *mark |= CHANGED;
            }
        }
    }
}

static bool is_seed(unsigned mark) { return (mark & CHANGED) && !(mark & CODED); }

static void code_seeds(const struct grid *grid, struct coder *coder, const uint8_t *probabilities) {
    for (unsigned class = 0; class < CLASSES; class++) {
        uint32_t left = 0, passed = 0;
        unsigned count = 0;
        for (size_t i = 0; i < grid->size; i++) {
            left += class_of(grid->marks[i]) == class;
        }
        grid->poll(grid->context);
        for (size_t i = 0; i < grid->size && left > 0; i++) {
            if (class_of(grid->marks[i]) != class) {
                continue;
            }
            if (is_seed(grid->marks[i])) {
                code_bit(coder, true, word(probabilities + 2 * (4 * class + count)));
                code_number(coder, passed, left);
                left -= passed + 1;
                passed = 0;
                count += count < COUNTS - 1;
            } else {
                passed++;
            }
        }
        if (left > 0) {
            code_bit(coder, false, word(probabilities + 2 * (4 * class + count)));
        }
        grid->poll(grid->context);
    }
}

static void code_pixels(const struct grid *grid, struct coder *coder, const uint8_t *nodes, size_t root) {
    for (size_t i = 0; i < grid->size; i++) {
        if (i % POLLED == 0) {
            grid->poll(grid->context);
        }
        if (!(grid->marks[i] & CODED)) {
            continue;
        }
        size_t node = root;
        unsigned value = word(nodes + 2 * node);
        while (value < LEAF) {
            const uint8_t *context = mask_tables + 2 + 3 * value;
            const int step = (int8_t)context[1] * (int)grid->stride + (int8_t)context[2];
            const uint8_t *at = grid->planes + i + step;
            node = *at >> context[0] & 1 ? word(grid->right + 2 * node) : node + 1;
            value = word(nodes + 2 * node);
        }
        code_bit(coder, grid->marks[i] & CHANGED, value - LEAF);
    }
}

size_t mask_change(const uint8_t *mask, const uint8_t *previous, unsigned rows, unsigned columns, uint8_t *scratch,
                   uint8_t *out, mask_poll *poll, void *context) {
    const size_t plain = MASK_BYTES(rows, columns);
    struct grid grid = {.rows = rows, .columns = columns, .stride = columns + 2 * MASK_REACH};
    grid.poll = poll;
    grid.context = context;
    grid.size = (rows + 2 * MASK_REACH) * (size_t)grid.stride;
    grid.planes = scratch;
    grid.marks = scratch + grid.size;
    grid.right = scratch + 2 * grid.size;
    bool any = false;
    for (size_t i = 0; i < plain; i++) {
        any = any || mask[i] != 0;
    }
    if (!any) {
        return 0;
    }
    memset(grid.planes, 0, grid.size);
    split(&grid, mask, 0);
    if (previous != NULL) {
        split(&grid, previous, REGIONS);
    }
    struct coder coder = {.range = UINT32_MAX, .out = out, .size = MASK_PAYLOAD(rows, columns)};
    code_bit(&coder, previous == NULL, ALONE);
    const uint8_t *seeds = mask_tables + 2 + 3 * word(mask_tables);
    const uint8_t *nodes = seeds + 2 * REGIONS * CLASSES * COUNTS;
    size_t root = 0;
    for (unsigned region = 0; region < REGIONS; region++) {
        const size_t next = index_tree(&grid, nodes, root);
        predict(&grid, region);
        mark_changes(&grid, region);
        code_seeds(&grid, &coder, seeds + 2 * region * CLASSES * COUNTS);
        code_pixels(&grid, &coder, nodes, root);
        root = next;
    }
    const size_t size = finish(&coder);
    if (size < plain) {
        return size;
    }
    memcpy(out, mask, plain);
    return plain;
}
