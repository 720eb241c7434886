/* For Cortex-M with the DSP extension (M4, M7, M33): SMLAD multiplies and adds two pairs of 16-bit values.
 *
 * `constants` of a convolution is one stream of words, read in turn (`dsp_constants` of convert/targets/firmware.py).
 * For each pair of output channels it holds two biases; for each four values of a window the weights 0 and 2, then 1
 * and 3 of the first channel, and the same of the second; then multiplier, offset and shift of both. Biases and weights
 * are doubled, because SMMLAR divides a product by 2^32 where TFLite divides by 2^31.
 */
#include "kernels.h"

#if NETWORK_KERNELS == NETWORK_DSP

#include <arm_acle.h>
#include <string.h>

#define BOTH(value) ((uint32_t)(uint16_t)(int16_t)(value) * 0x10001u)

/* What convolve_pixels needs, at the offsets that it uses. */
typedef struct {
    const NetworkLane *windows[2]; /* 0, 4 */
    const int32_t *constants;      /* 8 */
    int8_t *out;                   /* 12 */
    int32_t nines;                 /* 16: nine times four values of a window */
    int32_t ones;                  /* 20: four values each */
    int32_t channels;              /* 24 */
    int8_t *end;                   /* 28: where `out` ends for the first pixel */
} Pixels;

static uint32_t load(const int8_t *from)
{
    uint32_t word;
    memcpy(&word, __builtin_assume_aligned(from, 4), 4);
    return word;
}

static void store(int8_t *to, uint32_t word)
{
    memcpy(__builtin_assume_aligned(to, 4), &word, 4);
}

/* Values 0 and 2 of four, and values 1 and 3. */
static uint32_t even(uint32_t word)
{
    return (uint32_t)__sxtb16((int8x4_t)word);
}

static uint32_t odd(uint32_t word)
{
    uint32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}

/* Unpacks `count` values, a multiple of four. */
static NetworkLane *unpack(NetworkLane *lanes, const int8_t *values, int count)
{
    const int8_t *end = values + count;
    do {
        uint32_t word, other;
        __asm__("ldr %2, [%1], #4\n"
                "sxtb16 %3, %2\n"
                "sxtb16 %2, %2, ror #8\n"
                "strd %3, %2, [%0], #8\n"
                : "+r"(lanes), "+r"(values), "=&r"(word), "=&r"(other)
                :
                : "memory");
    } while (values < end);
    return lanes;
}

void network_spread(NetworkLane *windows, const int8_t *row, int count, int channels)
{
    const int8_t *end = row + count * channels;
    for (; row < end; row += channels) {
        windows = unpack(windows, row, channels) + 2 * channels;
    }
}

const NetworkLane *network_lanes(NetworkLane *windows, const int8_t *row, int count)
{
    (void)unpack(windows, row, count);
    return windows;
}

/* Two pixels of all channels, two channels at a time. Registers: r0, r1 windows; r2 constants; r3-r6 weights; r7, r8
 * four values of a window; r9, r10 sums of the first pixel; r11, r12 of the second; lr a count. */
#define GROUP                                                                                                          \
    "ldmia r2!, {r3-r6}\n"                                                                                             \
    "ldrd r7, r8, [r0], #8\n"                                                                                          \
    "smlad r9, r7, r3, r9\n"                                                                                           \
    "smlad r10, r7, r5, r10\n"                                                                                         \
    "smlad r9, r8, r4, r9\n"                                                                                           \
    "smlad r10, r8, r6, r10\n"                                                                                         \
    "ldrd r7, r8, [r1], #8\n"                                                                                          \
    "smlad r11, r7, r3, r11\n"                                                                                         \
    "smlad r12, r7, r5, r12\n"                                                                                         \
    "smlad r11, r8, r4, r11\n"                                                                                         \
    "smlad r12, r8, r6, r12\n"

/* Where outputs are not below their zero point, -128, it does not matter how ties of negative sums are rounded. */
#define RESCALE(sum, multiplier, offset, shift)                                                                        \
    "smmlar " sum ", " sum ", " multiplier ", " offset "\n"                                                            \
    "asr " sum ", " sum ", " shift "\n"                                                                                \
    "ssat " sum ", #8, " sum "\n"

#define RESCALE_SIGNED(sum, multiplier, offset, shift)                                                                 \
    "smmulr " sum ", " sum ", " multiplier "\n"                                                                        \
    "add " sum ", " sum ", " sum ", asr #31\n"                                                                         \
    "add " sum ", " sum ", " offset "\n"                                                                               \
    "asr " sum ", " sum ", " shift "\n"                                                                                \
    "ssat " sum ", #8, " sum "\n"

#define CONVOLVE(rescale)                                                                                              \
    "push {r0, r4-r11, lr}\n"                                                                                          \
    "ldr r2, [r0, #8]\n"                                                                                               \
    "1: ldr r3, [sp]\n"                                                                                                \
    "ldmia r2!, {r9, r10}\n"                                                                                           \
    "ldrd r0, r1, [r3]\n"                                                                                              \
    "ldr lr, [r3, #16]\n"                                                                                              \
    "mov r11, r9\n"                                                                                                    \
    "mov r12, r10\n"                                                                                                   \
    "cmp lr, #0\n"                                                                                                     \
    "beq 3f\n"                                                                                                         \
    "2: " GROUP GROUP GROUP GROUP GROUP GROUP GROUP GROUP GROUP "subs lr, lr, #1\n"                                    \
    "bne 2b\n"                                                                                                         \
    "3: ldr r0, [sp]\n"                                                                                                \
    "ldr lr, [r0, #20]\n"                                                                                              \
    "cmp lr, #0\n"                                                                                                     \
    "beq 5f\n"                                                                                                         \
    "ldr r0, [r0]\n"                                                                                                   \
    "4: " GROUP "subs lr, lr, #1\n"                                                                                    \
    "bne 4b\n"                                                                                                         \
    "ldr r0, [sp]\n"                                                                                                   \
    "5: ldr r1, [r0, #24]\n"                                                                                           \
    "ldr lr, [r0, #12]\n"                                                                                              \
    "ldmia r2!, {r3-r8}\n" rescale("r9", "r3", "r4", "r5") rescale("r11", "r3", "r4", "r5")                            \
        rescale("r10", "r6", "r7", "r8") rescale("r12", "r6", "r7", "r8") "strb r11, [lr, r1]\n"                       \
    "strb r9, [lr], #1\n"                                                                                              \
    "strb r12, [lr, r1]\n"                                                                                             \
    "strb r10, [lr], #1\n"                                                                                             \
    "str lr, [r0, #12]\n"                                                                                              \
    "ldr r1, [r0, #28]\n"                                                                                              \
    "cmp lr, r1\n"                                                                                                     \
    "bne 1b\n"                                                                                                         \
    "pop {r0, r4-r11, pc}\n"

__attribute__((naked, noinline, used)) static void convolve_pixels(Pixels *pixels __attribute__((unused)))
{
    __asm__ volatile(CONVOLVE(RESCALE));
}

__attribute__((naked, noinline, used)) static void convolve_pixels_signed(Pixels *pixels __attribute__((unused)))
{
    __asm__ volatile(CONVOLVE(RESCALE_SIGNED));
}

void network_convolve(const NetworkLayer *layer, const NetworkLane *windows, int step, int pixels, int8_t *out)
{
    Pixels both;
    int pixel;
    /* A window has either a multiple of nine groups, or few. */
    both.nines = layer->window == 3 ? layer->length / 36 : 0;
    both.ones = layer->window == 3 ? 0 : layer->length / 4;
    both.channels = layer->channels;
    for (pixel = 0; pixel < pixels; pixel += 2) {
        both.windows[0] = windows + pixel * step;
        both.windows[1] = both.windows[0] + step;
        both.constants = layer->constants;
        both.out = out;
        both.end = out + layer->channels;
        if (layer->is_signed != 0) {
            convolve_pixels_signed(&both);
        } else {
            convolve_pixels(&both);
        }
        out += 2 * layer->channels;
    }
}

static uint32_t larger(uint32_t one, uint32_t other)
{
    (void)__ssub8((int8x4_t)one, (int8x4_t)other);
    return (uint32_t)__sel((uint8x4_t)one, (uint8x4_t)other);
}

void network_pool(const int8_t *upper, const int8_t *lower, int pixels, int channels, int8_t *out)
{
    int pixel, i;
    for (pixel = 0; pixel < pixels; pixel++) {
        for (i = 0; i < channels; i += 4) {
            const uint32_t left = larger(load(upper + i), load(lower + i));
            const uint32_t right = larger(load(upper + channels + i), load(lower + channels + i));
            store(out + i, larger(left, right));
        }
        upper += 2 * channels;
        lower += 2 * channels;
        out += channels;
    }
}

/* A quarter of two sums, ties away from zero: (sum + 2, or + 1 if it is negative) / 4, rounded down. */
static uint32_t quarters(uint32_t sums)
{
    const uint32_t signs = sums >> 15 & 0x10001u;
    const int16x2_t moved = __ssub16((int16x2_t)__sadd16((int16x2_t)sums, (int16x2_t)BOTH(2)), (int16x2_t)signs);
    return (uint32_t)__shadd16(__shadd16(moved, 0), 0);
}

static uint32_t sum_of(uint32_t one, uint32_t other)
{
    return (uint32_t)__sadd16((int16x2_t)one, (int16x2_t)other);
}

static uint32_t pack(uint32_t evens, uint32_t odds)
{
    return (evens & 0x00FF00FFu) | (odds & 0x00FF00FFu) << 8;
}

void network_resize(const int8_t *upper, const int8_t *lower, int columns, int channels, int8_t *out)
{
    const int8_t *below = lower != NULL ? lower : upper;
    int column, i;
    for (column = 0; column < columns; column++) {
        const int next = column + 1 < columns ? channels : 0;
        for (i = 0; i < channels; i += 4) {
            const uint32_t left = load(upper + i);
            const uint32_t low_left = load(below + i);
            const uint32_t right = load(upper + next + i);
            const uint32_t low_right = load(below + next + i);
            const uint32_t evens = sum_of(even(left), even(low_left));
            const uint32_t odds = sum_of(odd(left), odd(low_left));
            const uint32_t right_evens = sum_of(even(right), even(low_right));
            const uint32_t right_odds = sum_of(odd(right), odd(low_right));
            store(out + i, pack(quarters(sum_of(evens, evens)), quarters(sum_of(odds, odds))));
            store(out + channels + i, pack(quarters(sum_of(evens, right_evens)), quarters(sum_of(odds, right_odds))));
        }
        upper += channels;
        below += channels;
        out += 2 * channels;
    }
}

/* `addend` and the product of two numbers over 2^32, rounded to nearest. */
static int32_t high_product(int32_t one, int32_t other, int32_t addend)
{
    int32_t result;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(result) : "r"(one), "r"(other), "r"(addend));
    return result;
}

static int32_t saturate(int32_t value)
{
    int32_t result;
    __asm__("ssat %0, #8, %1" : "=r"(result) : "r"(value));
    return result;
}

void network_add(const int32_t *constants, const int8_t *one, const int8_t *other, int count, int8_t *out)
{
    const int32_t first = constants[0], first_offset = constants[1], first_shift = constants[2];
    const int32_t second = constants[3], second_offset = constants[4], second_shift = constants[5];
    const int32_t multiplier = constants[6], offset = constants[7], shift = constants[8];
    int i;
    for (i = 0; i < count; i++) {
        const int32_t left = high_product((one[i] + 128) * (1 << 21), first, first_offset) >> first_shift;
        const int32_t right = high_product((other[i] + 128) * (1 << 21), second, second_offset) >> second_shift;
        out[i] = (int8_t)saturate(high_product(2 * (left + right), multiplier, offset) >> shift);
    }
}

#endif
