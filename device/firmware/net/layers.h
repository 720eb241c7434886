/* A layer of the network, as the generated tables describe it. */
#ifndef NETWORK_LAYERS_H
#define NETWORK_LAYERS_H

#include <stdint.h>

#include "network_tables.h"

/* The kernels that the tables are laid out for. */
#define NETWORK_PLAIN 0
#define NETWORK_DSP 1 /* SMLAD: M4, M7, M33 */
#define NETWORK_MVE 2 /* M55 */
#ifndef NETWORK_KERNELS
#if defined(__ARM_FEATURE_MVE)
#define NETWORK_KERNELS NETWORK_MVE
#elif defined(__ARM_FEATURE_SIMD32) && defined(__thumb2__)
#define NETWORK_KERNELS NETWORK_DSP
#else
#define NETWORK_KERNELS NETWORK_PLAIN
#endif
#endif

/* Channels are stored in groups of this many. */
#define NETWORK_GROUP 4

typedef enum {
    NETWORK_READ,
    NETWORK_CONVOLVE,
    NETWORK_POOL,
    NETWORK_RESIZE,
    NETWORK_ADD
} NetworkKind;

/* A layer and its output. Row r of the output lies at offset + (r mod depth) * columns * channels of the arena.
 * Where a convolution reaches beyond its source it reads the source's zero point `padding`. Its windows hold `length`
 * values, column by column, row by row; `strip` is the number of pixels computed at a time. For the layout of weights
 * and constants see the kernels. */
typedef struct {
    uint8_t kind;
    uint8_t sources[2];
    uint8_t window;
    uint8_t stride;
    uint8_t before;
    uint8_t strip;
    uint8_t is_signed; /* outputs may lie below the zero point: ties are rounded away from zero */
    int8_t padding;
    uint16_t rows;
    uint16_t columns;
    uint16_t channels;
    uint16_t depth;
    uint16_t length;
    uint32_t offset;
    const int8_t *weights;
    const int32_t *constants;
} NetworkLayer;

extern const NetworkLayer network_layers[NETWORK_LAYER_COUNT];

/* The layer of each step. A step computes the layer's next row. */
extern const uint8_t network_steps[NETWORK_STEP_COUNT];

#if defined(NETWORK_TRACE)
/* For tests, which define it: is given each row of each layer. */
void network_trace(int layer, int row, const int8_t *values);
#endif

#endif
