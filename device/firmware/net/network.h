/* The segmentation network of one packed int8 file, bit-equal to TFLite's reference kernels.
 *
 * network_tables.h and network_tables.c are generated (convert/targets/firmware.py). Two forms can be compiled:
 *   fast, the default: the whole slice lies in memory, and is overwritten while the network runs;
 *   small, -DNETWORK_SMALL=1: rows of the slice are read twice, and the first level is computed twice.
 * Nothing is allocated and every loop is bounded. One run at a time: the memory is static.
 *
 * Research software, not a medical device: not for diagnosis or treatment.
 */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdint.h>

#include "network_tables.h"

/* Takes a finished row: a label for each pixel (NETWORK_COLUMNS; 0 none, 1 core, 2 edema, 3 enhancing tumour) and its
 * logits (NETWORK_COLUMNS x NETWORK_REGIONS). Both are valid during the call only. */
typedef void (*NetworkOnRow)(void *context, int row, const uint8_t *labels, const int8_t *logits);

/* Called after each row of work, about a thousand times a slice, so that a busy board still acknowledges. */
typedef void (*NetworkPoll)(void *context);

/* Of the .tflite file that the tables were made from. */
extern const unsigned char network_sha256[32];

#if NETWORK_SMALL
/* Writes a row of the slice (NETWORK_COLUMNS x NETWORK_CHANNELS). In each of two passes, 0 and 1, rows are asked for from
 * the first to the last. The second pass begins after the first one, unless NETWORK_PASSES_OVERLAP is 1. */
typedef void (*NetworkReadRow)(void *context, int pass, int row, int8_t *pixels);

/* Segments one slice. `poll` may be NULL. */
void network_segment(NetworkReadRow read_row, NetworkOnRow on_row, NetworkPoll poll, void *context);
#else
/* Where the slice goes: NETWORK_ROWS x NETWORK_COLUMNS x NETWORK_CHANNELS. A run overwrites it. */
int8_t *network_input(void);

/* Segments the slice in network_input(). `poll` may be NULL. */
void network_segment(NetworkOnRow on_row, NetworkPoll poll, void *context);
#endif

/* The label of a pixel from its logits of WT, TC and ET: a region is where its logit is above the zero point. ET
 * overrides TC and TC overrides WT. */
uint8_t network_label(const int8_t *logits);

#endif
