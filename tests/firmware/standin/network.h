/* As device/firmware/net/network.h. */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdint.h>

#include "network_tables.h"

typedef void (*NetworkOnRow)(void *context, int row, const uint8_t *labels, const int8_t *logits);
typedef void (*NetworkPoll)(void *context);

extern const unsigned char network_sha256[32];

int8_t *network_input(void);
void network_segment(NetworkOnRow on_row, NetworkPoll poll, void *context);

#endif
