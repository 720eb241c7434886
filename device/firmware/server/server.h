/* The board's side of a session: "Messages" in docs/wire.md. One slice at a time, without play and without a memory
 * of runs. */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "confidence.h"
#include "link.h"
#include "masks.h"
#include "network.h"
#include "sha256.h"
#include "vp8.h"

#if NETWORK_SMALL
#error "the server keeps the slice in the memory of the network, which the form small does not have; choose a smaller network"
#endif

#ifndef SERVER_PAYLOAD
#define SERVER_PAYLOAD 7680 /* bytes of the largest slice that is not raw: more than twice the usual one */
#endif

struct server_board {
    uint64_t boot;                /* another one each time that the board starts */
    uint32_t (*microseconds)(void);
    void (*serve)(void);          /* exchanges bytes with the link, a millisecond's work at most */
};

/* What a slice needs before the network runs and what it needs after, in the same memory. */
union server_work {
    struct {
        struct vp8 vp8;
        uint8_t payload[SERVER_PAYLOAD];
    } image;
    struct {
        struct confidence confidence;
        uint8_t labels[MASK_BYTES(NETWORK_ROWS, NETWORK_COLUMNS)];
    } mask;
};

struct server {
    struct wire_link *link;
    const struct server_board *board;
    bool greeted, chosen, running;
    uint8_t mask_codec, absent, channel_count;
    uint8_t channels[NETWORK_CHANNELS]; /* those that the images of the run have */
    bool has_previous, slice_fits;
    uint16_t slices, next, failed, masks; /* of the run */
    uint64_t run_time;                    /* microseconds */
    struct sha256 run_digest, mask_digest;
    uint8_t head[16]; /* the first bytes of the message that arrives */
    uint8_t previous[MASK_BYTES(NETWORK_ROWS, NETWORK_COLUMNS)];
    union server_work work;
};

void server_init(struct server *server, struct wire_link *link, const struct server_board *board);

/* Forgets what belonged to the last session. */
void server_restart(struct server *server);

/* Sends the hello once the session is open, and handles what has arrived; false if there was nothing to do. */
bool server_step(struct server *server);

/* The link's `receive`; its context is the server. */
void server_receive(void *server, const struct wire_piece *piece);

#endif
