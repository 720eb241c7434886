/* A stand-in for the network, which tests can compute themselves: each logit is a channel of the pixel. */
#ifndef NETWORK_TABLES_H
#define NETWORK_TABLES_H

#ifndef NETWORK_ROWS
enum { NETWORK_ROWS = 160, NETWORK_COLUMNS = 192 };
#endif
enum { NETWORK_CHANNELS = 4, NETWORK_REGIONS = 3, NETWORK_ZERO_POINT = 20 };

#endif
