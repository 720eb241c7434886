/* The arithmetic of a row. One of kernels_plain.c, kernels_dsp.c and kernels_mve.c defines it: NETWORK_KERNELS chooses.
 *
 * A convolution is a product of windows and weights. `windows` holds the columns of a strip, each as the rows of the
 * window from top to bottom, so that a window is `length` values in one piece and the next one begins `step` later.
 */
#ifndef NETWORK_KERNELS_H
#define NETWORK_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "layers.h"

#if NETWORK_KERNELS == NETWORK_DSP
/* Of each four values, 0 and 2 lie in a word and 1 and 3 in the next: the order in which SXTB16 unpacks them. */
typedef int16_t NetworkLane;
#else
typedef int8_t NetworkLane;
#endif

/* Vector loads may read this many bytes beyond the last window; what lies there is multiplied by zero. */
#define NETWORK_OVERREAD 16

/* Copies `count` pixels of `channels` values to every third piece of the windows. */
void network_spread(NetworkLane *windows, const int8_t *row, int count, int channels);

/* Returns `count` values of a row as lanes: the row itself, or `windows`, filled. */
const NetworkLane *network_lanes(NetworkLane *windows, const int8_t *row, int count);

/* Computes `pixels` output pixels, an even number. */
void network_convolve(const NetworkLayer *layer, const NetworkLane *windows, int step, int pixels, int8_t *out);

/* The largest of 2 x 2 pixels; `pixels` and `channels` are the output's. */
void network_pool(const int8_t *upper, const int8_t *lower, int pixels, int channels, int8_t *out);

/* A row of twice the size: `columns` are the source's. Odd rows lie between `upper` and `lower`; for even rows `lower`
 * is NULL. Means are rounded to nearest, ties away from zero. */
void network_resize(const int8_t *upper, const int8_t *lower, int columns, int channels, int8_t *out);

/* The sum of two rows of `count` values with zero points of -128. `constants` are multiplier, offset and shift of each
 * input and of the output. */
void network_add(const int32_t *constants, const int8_t *one, const int8_t *other, int count, int8_t *out);

#endif
