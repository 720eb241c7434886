/* For Cortex-M with MVE, Arm's vector extension (M55, M85): VMLADAVA adds up sixteen products.
 *
 * Weights are (output channel, window), each window padded with zeros to whole vectors. Constants are biases,
 * multipliers, offsets and negative shifts of each group of four output channels.
 */
#include "kernels.h"

#if NETWORK_KERNELS == NETWORK_MVE

#include <arm_mve.h>
#include <string.h>

void network_spread(NetworkLane *windows, const int8_t *row, int count, int channels)
{
    int k = 0, column;
    for (; k + 16 <= channels; k += 16) {
        for (column = 0; column < count; column++) {
            vstrbq_s8(windows + k + column * 3 * channels, vldrbq_s8(row + k + column * channels));
        }
    }
    for (; k < channels; k += NETWORK_GROUP) {
        for (column = 0; column < count; column++) {
            memcpy(windows + k + column * 3 * channels, row + k + column * channels, NETWORK_GROUP);
        }
    }
}

const NetworkLane *network_lanes(NetworkLane *windows, const int8_t *row, int count)
{
    (void)windows;
    (void)count;
    return row;
}

/* Sums of four channels to their outputs. Negative products are moved down by one bit, so that their ties are rounded
 * away from zero. */
static void rescale(const int32_t *sums, const int32_t *constants, int8_t *out)
{
    int32x4_t values = vqrdmulhq_s32(vldrwq_s32(sums), vldrwq_s32(constants + 4));
    values = vaddq_s32(values, vshrq_n_s32(values, 31));
    values = vshlq_s32(vaddq_s32(values, vldrwq_s32(constants + 8)), vldrwq_s32(constants + 12));
    values = vminq_s32(vmaxq_s32(values, vdupq_n_s32(-128)), vdupq_n_s32(127));
    vstrbq_s32(out, values);
}

void network_convolve(const NetworkLayer *layer, const NetworkLane *windows, int step, int pixels, int8_t *out)
{
    const int length = layer->length;
    const int channels = layer->channels;
    int pixel, channel, i;
    for (pixel = 0; pixel < pixels; pixel += 2) {
        const int8_t *weights = layer->weights;
        const int32_t *constants = layer->constants;
        for (channel = 0; channel < channels; channel += 4) {
            int32_t sums[2][4];
            int pair;
            for (pair = 0; pair < 4; pair += 2) {
                const int8_t *one = windows + pixel * step;
                const int8_t *next = one + step;
                int32_t sum00 = constants[pair], sum01 = constants[pair + 1], sum10 = sum00, sum11 = sum01;
                for (i = 0; i < length; i += 16) {
                    const int8x16_t first = vldrbq_s8(weights);
                    const int8x16_t second = vldrbq_s8(weights + length);
                    const int8x16_t left = vldrbq_s8(one);
                    const int8x16_t right = vldrbq_s8(next);
                    sum00 = vmladavaq_s8(sum00, left, first);
                    sum01 = vmladavaq_s8(sum01, left, second);
                    sum10 = vmladavaq_s8(sum10, right, first);
                    sum11 = vmladavaq_s8(sum11, right, second);
                    weights += 16;
                    one += 16;
                    next += 16;
                }
                weights += length;
                sums[0][pair] = sum00;
                sums[0][pair + 1] = sum01;
                sums[1][pair] = sum10;
                sums[1][pair + 1] = sum11;
            }
            rescale(sums[0], constants, out + channel);
            rescale(sums[1], constants, out + channels + channel);
            constants += 16;
        }
        out += 2 * channels;
    }
}

void network_pool(const int8_t *upper, const int8_t *lower, int pixels, int channels, int8_t *out)
{
    int pixel, i;
    for (pixel = 0; pixel < pixels; pixel++) {
        for (i = 0; i < channels; i += 16) {
            const mve_pred16_t left = vctp8q((uint32_t)(channels - i));
            const int8_t *high = upper + i, *low = lower + i;
            const int8x16_t first = vmaxq_s8(vldrbq_z_s8(high, left), vldrbq_z_s8(low, left));
            const int8x16_t second = vmaxq_s8(vldrbq_z_s8(high + channels, left), vldrbq_z_s8(low + channels, left));
            vstrbq_p_s8(out + i, vmaxq_s8(first, second), left);
        }
        upper += 2 * channels;
        lower += 2 * channels;
        out += channels;
    }
}

/* A quarter of each sum, ties away from zero. */
static int32x4_t quarters(int32x4_t sums)
{
    return vshrq_n_s32(vaddq_n_s32(vaddq_s32(sums, vshrq_n_s32(sums, 31)), 2), 2);
}

void network_resize(const int8_t *upper, const int8_t *lower, int columns, int channels, int8_t *out)
{
    const int8_t *below = lower != NULL ? lower : upper;
    int column, i;
    for (i = 0; i < channels; i += NETWORK_GROUP) {
        const int8_t *high = upper + i, *low = below + i;
        int8_t *to = out + i;
        int32x4_t sums = vaddq_s32(vldrbq_s32(high), vldrbq_s32(low));
        for (column = 1; column < columns; column++) {
            int32x4_t right;
            high += channels;
            low += channels;
            right = vaddq_s32(vldrbq_s32(high), vldrbq_s32(low));
            vstrbq_s32(to, quarters(vaddq_s32(sums, sums)));
            to += channels;
            vstrbq_s32(to, quarters(vaddq_s32(sums, right)));
            to += channels;
            sums = right;
        }
        vstrbq_s32(to, quarters(vaddq_s32(sums, sums)));
        vstrbq_s32(to + channels, quarters(vaddq_s32(sums, sums)));
    }
}

/* Inputs of a sum with 20 more bits; they are not negative, so that no tie has to be rounded down. */
static int32x4_t lift(const int8_t *values, int32_t multiplier, int32x4_t offset, int32x4_t shift)
{
    const int32x4_t lifted = vshlq_n_s32(vaddq_n_s32(vldrbq_s32(values), 128), 20);
    return vshlq_s32(vaddq_s32(vqrdmulhq_n_s32(lifted, multiplier), offset), shift);
}

void network_add(const int32_t *constants, const int8_t *one, const int8_t *other, int count, int8_t *out)
{
    const int32x4_t first_offset = vdupq_n_s32(constants[1]), first_shift = vdupq_n_s32(-constants[2]);
    const int32x4_t second_offset = vdupq_n_s32(constants[4]), second_shift = vdupq_n_s32(-constants[5]);
    const int32x4_t offset = vdupq_n_s32(constants[7]), shift = vdupq_n_s32(-constants[8]);
    const int32_t first = constants[0], second = constants[3], multiplier = constants[6];
    int i;
    for (i = 0; i < count; i += NETWORK_GROUP) {
        const int32x4_t left = lift(one + i, first, first_offset, first_shift);
        const int32x4_t right = lift(other + i, second, second_offset, second_shift);
        const int32x4_t sums = vqrdmulhq_n_s32(vaddq_s32(left, right), multiplier);
        vstrbq_s32(out + i, vminq_s32(vshlq_s32(vaddq_s32(sums, offset), shift), vdupq_n_s32(127)));
    }
}

#endif
