/* The confidence of a mask, one byte, row by row as the logits come: docs/confidence.md. */
#ifndef SERVER_CONFIDENCE_H
#define SERVER_CONFIDENCE_H

#include <stdint.h>

enum {
    CONFIDENCE_REGIONS = 3,
    CONFIDENCE_COLUMNS = 192, /* at most */
    CONFIDENCE_WIDTH = 8,     /* pixels of a region that lie this close to its border count */
    CONFIDENCE_WINDOW = 2 * CONFIDENCE_WIDTH + 1,
    CONFIDENCE_MOST = 254,
    CONFIDENCE_UNKNOWN = 255
};

struct confidence {
    uint32_t factor; /* 64 steps of the byte per logit: scale x 64 x 65536, rounded */
    int zero_point;
    unsigned columns, rows;
    int8_t highest_logit; /* of the mask */
    uint8_t run[CONFIDENCE_REGIONS][CONFIDENCE_COLUMNS];                             /* rows in the region, up to this one */
    uint8_t distances[CONFIDENCE_WIDTH + 1][CONFIDENCE_REGIONS][CONFIDENCE_COLUMNS]; /* 0 outside of the region */
    uint32_t count[CONFIDENCE_REGIONS];
    uint64_t sum[CONFIDENCE_REGIONS];
};

void confidence_start(struct confidence *confidence, unsigned columns, uint32_t factor, int zero_point);

/* Takes the logits of the next row, three a pixel. */
void confidence_row(struct confidence *confidence, const int8_t *logits);

/* Returns the confidence of the mask, after its last row. */
uint8_t confidence_finish(struct confidence *confidence);

#endif
