/* Follows the generated plan: each step computes the next row of a layer. */
#include "network.h"

#include <string.h>

#include "kernels.h"

static int8_t arena[NETWORK_ARENA + NETWORK_OVERREAD] __attribute__((aligned(8)));
static NetworkLane windows[NETWORK_LANES + NETWORK_OVERREAD] __attribute__((aligned(8)));

static uint16_t next_rows[NETWORK_LAYER_COUNT];

static int8_t *row_of(const NetworkLayer *layer, int row)
{
    const uint32_t bytes = (uint32_t)layer->columns * layer->channels;
    return arena + layer->offset + (uint32_t)(row % layer->depth) * bytes;
}

static void fill(NetworkLane *lanes, int columns, int channels, int8_t value)
{
    int column, i;
    for (column = 0; column < columns; column++) {
        for (i = 0; i < channels; i++) {
            lanes[i] = value;
        }
        lanes += 3 * channels;
    }
}

/* Gathers `count` columns of three rows from column `first` on, which may be -1. What lies outside the source and rows
 * that are NULL become `padding`. */
static void gather(const NetworkLayer *source, const int8_t *const rows[3], int first, int count, int8_t padding)
{
    const int channels = source->channels;
    const int before = first < 0 ? -first : 0;
    const int after = first + count > source->columns ? first + count - source->columns : 0;
    int i;
    for (i = 0; i < 3; i++) {
        NetworkLane *lanes = windows + i * channels;
        if (rows[i] == NULL) {
            fill(lanes, count, channels, padding);
        } else {
            fill(lanes, before, channels, padding);
            network_spread(lanes + before * 3 * channels, rows[i] + (first + before) * channels, count - before - after,
                           channels);
            fill(lanes + (count - after) * 3 * channels, after, channels, padding);
        }
    }
}

static void convolve(const NetworkLayer *layer, int row, int8_t *out)
{
    const NetworkLayer *source = &network_layers[layer->sources[0]];
    const int channels = source->channels;
    const int step = (layer->window == 1 ? 1 : 3 * layer->stride) * channels;
    const int top = row * layer->stride - layer->before;
    const int8_t *rows[3] = {NULL, NULL, NULL};
    int first, i;
    for (i = 0; i < layer->window; i++) {
        if (top + i >= 0 && top + i < source->rows) {
            rows[i] = row_of(source, top + i);
        }
    }
    for (first = 0; first < layer->columns; first += layer->strip) {
        const int rest = layer->columns - first;
        const int pixels = rest < layer->strip ? rest : layer->strip;
        const NetworkLane *lanes = windows;
        if (layer->window == 1) {
            lanes = network_lanes(windows, rows[0] + first * channels, pixels * channels);
        } else {
            const int columns = (pixels - 1) * layer->stride + 3;
            gather(source, rows, first * layer->stride - layer->before, columns, layer->padding);
        }
        network_convolve(layer, lanes, step, pixels, out + first * layer->channels);
    }
}

static void resize(const NetworkLayer *layer, int row, int8_t *out)
{
    const NetworkLayer *source = &network_layers[layer->sources[0]];
    const int upper = row / 2;
    const int lower = upper + 1 < source->rows ? upper + 1 : upper;
    const int8_t *between = row % 2 != 0 ? row_of(source, lower) : NULL;
    network_resize(row_of(source, upper), between, source->columns, source->channels, out);
}

static void compute(const NetworkLayer *layer, int row, int8_t *out)
{
    const NetworkLayer *source = &network_layers[layer->sources[0]];
    switch (layer->kind) {
    case NETWORK_CONVOLVE:
        convolve(layer, row, out);
        break;
    case NETWORK_POOL:
        network_pool(row_of(source, 2 * row), row_of(source, 2 * row + 1), layer->columns, layer->channels, out);
        break;
    case NETWORK_RESIZE:
        resize(layer, row, out);
        break;
    default:
        network_add(layer->constants, row_of(source, row), row_of(&network_layers[layer->sources[1]], row),
                    layer->columns * layer->channels, out);
        break;
    }
}

uint8_t network_label(const int8_t *logits)
{
    uint8_t label = 0;
    if (logits[0] > NETWORK_ZERO_POINT) {
        label = 2;
    }
    if (logits[1] > NETWORK_ZERO_POINT) {
        label = 1;
    }
    if (logits[2] > NETWORK_ZERO_POINT) {
        label = 3;
    }
    return label;
}

/* Closes up the padded logits of a row, in place, and labels it. */
static void finish(int8_t *logits, uint8_t *labels)
{
    int pixel, region;
    for (pixel = 0; pixel < NETWORK_COLUMNS; pixel++) {
        for (region = 0; region < NETWORK_REGIONS; region++) {
            logits[NETWORK_REGIONS * pixel + region] = logits[NETWORK_GROUP * pixel + region];
        }
        labels[pixel] = network_label(logits + NETWORK_REGIONS * pixel);
    }
}

#if NETWORK_SMALL
void network_segment(NetworkReadRow read_row, NetworkOnRow on_row, NetworkPoll poll, void *context)
#else
int8_t *network_input(void)
{
    return arena + network_layers[0].offset;
}

void network_segment(NetworkOnRow on_row, NetworkPoll poll, void *context)
#endif
{
    static uint8_t labels[NETWORK_COLUMNS];
    int step;
    memset(next_rows, 0, sizeof next_rows);
    for (step = 0; step < NETWORK_STEP_COUNT; step++) {
        const int number = network_steps[step];
        const NetworkLayer *layer = &network_layers[number];
        const int row = next_rows[number]++;
        int8_t *out = row_of(layer, row);
#if NETWORK_SMALL
        if (layer->kind == NETWORK_READ) {
            read_row(context, number != 0, row, out);
        } else {
            compute(layer, row, out);
        }
#else
        compute(layer, row, out);
#endif
#if defined(NETWORK_TRACE)
        network_trace(number, row, out);
#endif
        if (number == NETWORK_LAYER_COUNT - 1) {
            finish(out, labels);
            on_row(context, row, labels, out);
        }
        if (poll != NULL) {
            poll(context);
        }
    }
}
