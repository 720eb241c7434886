#include "network.h"

static int8_t input[NETWORK_ROWS * NETWORK_COLUMNS * NETWORK_CHANNELS];

const unsigned char network_sha256[32] = {1, 2, 3};

int8_t *network_input(void) { return input; }

void network_segment(NetworkOnRow on_row, NetworkPoll poll, void *context) {
    for (int row = 0; row < NETWORK_ROWS; row++) {
        uint8_t labels[NETWORK_COLUMNS];
        int8_t logits[NETWORK_COLUMNS * NETWORK_REGIONS];
        for (int column = 0; column < NETWORK_COLUMNS; column++) {
            const int8_t *pixel = input + ((row * NETWORK_COLUMNS) + column) * NETWORK_CHANNELS;
            labels[column] = pixel[2] > NETWORK_ZERO_POINT   ? 3
                             : pixel[1] > NETWORK_ZERO_POINT ? 1
                             : pixel[0] > NETWORK_ZERO_POINT ? 2
                                                             : 0;
            for (int region = 0; region < NETWORK_REGIONS; region++) {
                logits[column * NETWORK_REGIONS + region] = pixel[region];
            }
        }
        on_row(context, row, labels, logits);
        poll(context);
    }
    for (unsigned i = 0; i < sizeof input; i++) {
        input[i] = 99; /* a run overwrites its input */
    }
}
