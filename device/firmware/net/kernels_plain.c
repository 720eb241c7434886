/* Plain C, for any processor.
 *
 * Weights are (output channel, window); constants are bias, multiplier, offset and shift of each output channel.
 * Right shifts of negative numbers are arithmetic, as gcc and clang define them.
 */
#include "kernels.h"

#if NETWORK_KERNELS == NETWORK_PLAIN

#include <string.h>

/* The product of two numbers over 2^31, rounded to nearest, ties up. */
static int32_t high_product(int32_t value, int32_t multiplier)
{
    return (int32_t)(((int64_t)value * multiplier + (1 << 30)) >> 31);
}

static int8_t saturate(int32_t value)
{
    return (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
}

/* Rescales a sum; `constants` are multiplier, offset and shift. Ties are rounded away from zero: the offset holds half
 * a step, less one bit for negative numbers. */
static int8_t rescale(int32_t sum, const int32_t *constants)
{
    const int32_t product = high_product(sum, constants[0]);
    return saturate((product - (product < 0) + constants[1]) >> constants[2]);
}

void network_spread(NetworkLane *windows, const int8_t *row, int count, int channels)
{
    int column;
    for (column = 0; column < count; column++) {
        memcpy(windows, row, (size_t)channels);
        windows += 3 * channels;
        row += channels;
    }
}

const NetworkLane *network_lanes(NetworkLane *windows, const int8_t *row, int count)
{
    (void)windows;
    (void)count;
    return row;
}

void network_convolve(const NetworkLayer *layer, const NetworkLane *windows, int step, int pixels, int8_t *out)
{
    const int length = layer->length;
    const int channels = layer->channels;
    int pixel, channel, i;
    for (pixel = 0; pixel < pixels; pixel += 2) {
        const int8_t *one = windows + pixel * step;
        const int8_t *next = one + step;
        const int8_t *weights = layer->weights;
        const int32_t *constants = layer->constants;
        for (channel = 0; channel < channels; channel += 2) {
            const int8_t *others = weights + length;
            int32_t sum00 = constants[0], sum10 = constants[0], sum01 = constants[4], sum11 = constants[4];
            for (i = 0; i < length; i++) {
                sum00 += one[i] * weights[i];
                sum01 += one[i] * others[i];
                sum10 += next[i] * weights[i];
                sum11 += next[i] * others[i];
            }
            out[channel] = rescale(sum00, constants + 1);
            out[channel + 1] = rescale(sum01, constants + 5);
            out[channels + channel] = rescale(sum10, constants + 1);
            out[channels + channel + 1] = rescale(sum11, constants + 5);
            weights += 2 * length;
            constants += 8;
        }
        out += 2 * channels;
    }
}

static int8_t larger(int8_t one, int8_t other)
{
    return one > other ? one : other;
}

void network_pool(const int8_t *upper, const int8_t *lower, int pixels, int channels, int8_t *out)
{
    int pixel, i;
    for (pixel = 0; pixel < pixels; pixel++) {
        for (i = 0; i < channels; i++) {
            out[i] = larger(larger(upper[i], upper[i + channels]), larger(lower[i], lower[i + channels]));
        }
        upper += 2 * channels;
        lower += 2 * channels;
        out += channels;
    }
}

/* A quarter of a sum, ties away from zero. */
static int8_t quarter(int32_t sum)
{
    return (int8_t)((sum + 2 - (sum < 0)) >> 2);
}

void network_resize(const int8_t *upper, const int8_t *lower, int columns, int channels, int8_t *out)
{
    const int8_t *below = lower != NULL ? lower : upper;
    int column, i;
    for (column = 0; column < columns; column++) {
        const int next = column + 1 < columns ? channels : 0;
        for (i = 0; i < channels; i++) {
            const int32_t sum = upper[i] + below[i];
            out[i] = quarter(2 * sum);
            out[channels + i] = quarter(sum + upper[next + i] + below[next + i]);
        }
        upper += channels;
        below += channels;
        out += 2 * channels;
    }
}

/* An input of a sum with 20 more bits; it is not negative, so that no tie has to be rounded down. */
static int32_t lift(int8_t value, const int32_t *constants)
{
    return (high_product((value + 128) * (1 << 20), constants[0]) + constants[1]) >> constants[2];
}

void network_add(const int32_t *constants, const int8_t *one, const int8_t *other, int count, int8_t *out)
{
    int i;
    for (i = 0; i < count; i++) {
        out[i] = rescale(lift(one[i], constants) + lift(other[i], constants + 3), constants + 6);
    }
}

#endif
