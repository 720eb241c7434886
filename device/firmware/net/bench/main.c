/* Segments the slices of slices.bin one after the other.
 *
 * For each, it writes to results.bin: labels, logits, a CRC-32 of each layer's output, and as 32-bit words the
 * instructions (two words, the low one first) and the bytes of stack.
 */
#include <string.h>

#include "../layers.h"
#include "../network.h"
#include "bench.h"

enum { PIXELS = NETWORK_ROWS * NETWORK_COLUMNS, SLICE = PIXELS * NETWORK_CHANNELS };

static uint8_t all_labels[PIXELS];
static int8_t all_logits[PIXELS * NETWORK_REGIONS];

static void on_row(void *context, int row, const uint8_t *labels, const int8_t *logits)
{
    (void)context;
    memcpy(all_labels + row * NETWORK_COLUMNS, labels, NETWORK_COLUMNS);
    memcpy(all_logits + row * NETWORK_COLUMNS * NETWORK_REGIONS, logits, NETWORK_COLUMNS * NETWORK_REGIONS);
}

#if NETWORK_SMALL
static int8_t slice[SLICE];
static int asked[2];
static int in_order;

static void read_row(void *context, int pass, int row, int8_t *pixels)
{
    (void)context;
    in_order = in_order && row == asked[pass] && (NETWORK_PASSES_OVERLAP || pass == 0 || asked[0] == NETWORK_ROWS);
    asked[pass]++;
    memcpy(pixels, slice + row * NETWORK_COLUMNS * NETWORK_CHANNELS, NETWORK_COLUMNS * NETWORK_CHANNELS);
}
#endif

#if defined(NETWORK_TRACE)
static uint32_t checks[NETWORK_LAYER_COUNT];

void network_trace(int layer, int row, const int8_t *values)
{
    const int size = network_layers[layer].columns * network_layers[layer].channels;
    uint32_t crc = row == 0 ? 0xFFFFFFFFu : ~checks[layer];
    int i, bit;
    for (i = 0; i < size; i++) {
        crc ^= (uint8_t)values[i];
        for (bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1u)));
        }
    }
    checks[layer] = ~crc;
}
#endif

int bench_main(void)
{
    long number;
    for (number = 0;; number++) {
        uint32_t words[3];
        uint64_t instructions;
#if NETWORK_SMALL
        if (bench_read(number * SLICE, slice, SLICE) != 0) {
            break;
        }
        asked[0] = asked[1] = 0;
        in_order = 1;
        bench_start();
        network_segment(read_row, on_row, bench_poll, NULL);
        if (!in_order || asked[0] != NETWORK_ROWS || asked[1] != NETWORK_ROWS) {
            return 1;
        }
#else
        if (bench_read(number * SLICE, network_input(), SLICE) != 0) {
            break;
        }
        bench_start();
        network_segment(on_row, bench_poll, NULL);
#endif
        instructions = bench_instructions();
        words[0] = (uint32_t)instructions;
        words[1] = (uint32_t)(instructions >> 32);
        words[2] = bench_stack();
        if (bench_write(all_labels, sizeof all_labels) != 0 ||
            bench_write(all_logits, sizeof all_logits) != 0) {
            return 1;
        }
#if defined(NETWORK_TRACE)
        if (bench_write(checks, sizeof checks) != 0) {
            return 1;
        }
#endif
        if (bench_write(words, sizeof words) != 0) {
            return 1;
        }
    }
    return number == 0;
}
