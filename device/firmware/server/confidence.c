#include "confidence.h"

#include <string.h>

void confidence_start(struct confidence *confidence, unsigned columns, uint32_t factor, int zero_point) {
    memset(confidence, 0, sizeof *confidence);
    confidence->columns = columns;
    confidence->factor = factor;
    confidence->zero_point = zero_point;
    confidence->highest_logit = INT8_MIN;
}

static uint8_t distance_of(const struct confidence *confidence, int logit) {
    const int steps = logit - confidence->zero_point;
    const uint64_t distance = ((uint64_t)(steps < 0 ? -steps : steps) * confidence->factor + 0x8000) >> 16;
    return (uint8_t)(distance < CONFIDENCE_MOST ? distance : CONFIDENCE_MOST);
}

/* Adds up the row that lies CONFIDENCE_WIDTH rows above the last one. A pixel is interior if the whole window
 * around it is in the region: the columns of the window have been in it for as many rows. */
static void add_row(struct confidence *confidence) {
    const unsigned slot = (confidence->rows - 1 - CONFIDENCE_WIDTH) % (CONFIDENCE_WIDTH + 1);
    for (unsigned region = 0; region < CONFIDENCE_REGIONS; region++) {
        const uint8_t *distances = confidence->distances[slot][region], *run = confidence->run[region];
        unsigned full = 0; /* columns in a row, up to here, that are full */
        for (unsigned column = 0; column < confidence->columns + CONFIDENCE_WIDTH; column++) {
            full = column < confidence->columns && run[column] >= CONFIDENCE_WINDOW ? full + 1 : 0;
            if (column < CONFIDENCE_WIDTH) {
                continue;
            }
            const uint8_t distance = distances[column - CONFIDENCE_WIDTH];
            if (distance > 0 && full < CONFIDENCE_WINDOW) {
                confidence->sum[region] += distance - 1U;
                confidence->count[region]++;
            }
        }
    }
}

static void next_row(struct confidence *confidence, const int8_t *logits) {
    const unsigned slot = confidence->rows % (CONFIDENCE_WIDTH + 1);
    for (unsigned region = 0; region < CONFIDENCE_REGIONS; region++) {
        uint8_t *distances = confidence->distances[slot][region], *run = confidence->run[region];
        for (unsigned column = 0; column < confidence->columns; column++) {
            const int logit = logits != NULL ? logits[3 * column + region] : INT8_MIN;
            const int inside = logits != NULL && logit > confidence->zero_point;
            if (logit > confidence->highest_logit) {
                confidence->highest_logit = (int8_t)logit;
            }
            /* One more than the distance; 0 is outside. */
            distances[column] = (uint8_t)(inside ? distance_of(confidence, logit) + 1 : 0);
            run[column] = (uint8_t)(!inside ? 0 : run[column] < CONFIDENCE_WINDOW ? run[column] + 1 : run[column]);
        }
    }
    confidence->rows++;
    if (confidence->rows > CONFIDENCE_WIDTH) {
        add_row(confidence);
    }
}

void confidence_row(struct confidence *confidence, const int8_t *logits) { next_row(confidence, logits); }

uint8_t confidence_finish(struct confidence *confidence) {
    for (unsigned i = 0; i < CONFIDENCE_WIDTH; i++) {
        next_row(confidence, NULL); /* outside of the mask */
    }
    uint64_t total = 0;
    unsigned present = 0;
    for (unsigned region = 0; region < CONFIDENCE_REGIONS; region++) {
        if (confidence->count[region] > 0) {
            total += 256 * confidence->sum[region] / confidence->count[region];
            present++;
        }
    }
    if (present == 0) {
        return distance_of(confidence, confidence->highest_logit);
    }
    return (uint8_t)(total / present / 256);
}
