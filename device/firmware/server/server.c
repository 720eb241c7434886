#include "server.h"

#include <string.h>

#include "model.h"

enum { BOARD_HELLO = 1, HOST_HELLO, START, SLICE, MASK, END, ERROR, EMPTY };
enum { SERVE = 1, OWN_LABELS = 1, REFERENCE_KERNELS = 1 };
enum { RAW = 0, LOSSY = 3, IMAGE_CODECS = 1 << RAW | 1 << LOSSY, MASK_CODECS = 1 << MASK_RUNS | 1 << MASK_CHANGE };
enum { FAILED_SLICE = 1, REFUSED = 3 };
enum {
    VERSION = 4,
    HELLO_SIZE = 98,
    HOST_HELLO_SIZE = 5,
    START_SIZE = 14,
    SLICE_HEAD = 4,
    MASK_HEAD = 10, /* at most */
    END_SIZE = 45,
    ERROR_HEAD = 6,
    MAX_TEXT = 120,
    MAX_SLICES = 1024,
    PIXELS = NETWORK_ROWS * NETWORK_COLUMNS,
    IMAGE = PIXELS * NETWORK_CHANNELS
};

/* The slice's memory, once the network has run: the message with the mask, and what its encoder needs. */
enum { OUT_SIZE = PIXELS + MASK_HEAD, SCRATCH_AT = OUT_SIZE };

typedef char image_holds_the_encoder[SCRATCH_AT + MASK_SCRATCH(NETWORK_ROWS, NETWORK_COLUMNS) <= IMAGE ? 1 : -1];

static uint8_t *put(uint8_t *at, uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) {
        *at++ = (uint8_t)(value >> 8 * i);
    }
    return at;
}

static uint8_t *put_varint(uint8_t *at, uint32_t value) {
    for (; value > 0x7F; value >>= 7) {
        *at++ = (uint8_t)(value | 0x80);
    }
    *at++ = (uint8_t)value;
    return at;
}

static unsigned u16(const uint8_t *at) { return at[0] | (unsigned)at[1] << 8; }

/* Sends a message, however little room there is; gives up when the session ends. */
static void send(struct server *server, const uint8_t *message, uint32_t size) {
    struct wire_link *link = server->link;
    while (link->state == WIRE_OPEN && !wire_write_length(link, size)) {
        server->board->serve();
    }
    while (link->state == WIRE_OPEN && size > 0) {
        const uint32_t taken = wire_write(link, message, size);
        message += taken;
        size -= taken;
        server->board->serve();
    }
}

static void send_hello(struct server *server) {
    static const uint8_t modalities[4] = MODEL_MODALITIES;
    static const char name[16] = MODEL_NAME;
    uint8_t message[HELLO_SIZE], *at = message;
    const float numbers[2] = {MODEL_SCALE, MODEL_CLIP};
    at = put(at, BOARD_HELLO, 1);
    at = put(at, VERSION, 1);
    at = put(at, SERVE, 1);
    at = put(at, OWN_LABELS, 1);
    at = put(at, NETWORK_ROWS, 2);
    at = put(at, NETWORK_COLUMNS, 2);
    at = put(at, 1, 1); /* slices at once */
    memcpy(at, modalities, sizeof modalities);
    at = put(at + sizeof modalities, (uint8_t)MODEL_ZERO_POINT, 1);
    for (unsigned i = 0; i < 2; i++) {
        uint32_t bits;
        memcpy(&bits, &numbers[i], sizeof bits);
        at = put(at, bits, 4);
    }
    at = put(at, IMAGE_CODECS, 2);
    at = put(at, MASK_CODECS, 2);
    memcpy(at, network_sha256, SHA256_SIZE);
    memcpy(at + SHA256_SIZE, name, sizeof name);
    at = put(at + SHA256_SIZE + sizeof name, server->board->boot, 8);
    at = put(at, 0, 8); /* it remembers no run */
    at = put(at, 0, 2);
    at = put(at, 0, 1); /* no mirroring */
    at = put(at, REFERENCE_KERNELS, 1);
    at = put(at, SERVER_PAYLOAD, 4);
    send(server, message, (uint32_t)(at - message));
}

static void send_error(struct server *server, unsigned code, int32_t index, const char *text) {
    uint8_t message[ERROR_HEAD + MAX_TEXT], *at = message;
    at = put(at, ERROR, 1);
    at = put(at, code, 1);
    at = put(at, (uint32_t)index, 4);
    for (; *text != 0 && at < message + sizeof message; text++) {
        *at++ = (uint8_t)*text;
    }
    send(server, message, (uint32_t)(at - message));
}

static void refuse(struct server *server, const char *text) { send_error(server, REFUSED, -1, text); }

static void end_run(struct server *server) {
    uint8_t message[END_SIZE], *at = message;
    at = put(at, END, 1);
    at = put(at, server->masks, 2);
    at = put(at, server->failed, 2);
    at = put(at, server->run_time, 8);
    sha256_finish(&server->run_digest, at);
    server->running = false;
    send(server, message, sizeof message);
}

static void end_slice(struct server *server) {
    server->next++;
    if (server->next == server->slices) {
        end_run(server);
    }
}

static void fail_slice(struct server *server, const char *text) {
    server->has_previous = false;
    server->failed++;
    send_error(server, FAILED_SLICE, server->next, text);
    end_slice(server);
}

static void take_level(void *context, unsigned row, const uint8_t *levels) {
    const struct server *server = context;
    const size_t first = (size_t)(row % NETWORK_ROWS) * NETWORK_COLUMNS;
    int8_t *at = network_input() + first * NETWORK_CHANNELS + server->channels[row / NETWORK_ROWS];
    for (unsigned column = 0; column < NETWORK_COLUMNS; column++) {
        at[(size_t)column * NETWORK_CHANNELS] = vp8_value(levels[column]);
    }
    server->board->serve();
}

static void take_mask(void *context, int row, const uint8_t *labels, const int8_t *logits) {
    struct server *server = context;
    for (unsigned column = 0; column < NETWORK_COLUMNS; column++) {
        mask_set(server->work.mask.labels, (size_t)row * NETWORK_COLUMNS + column, labels[column]);
    }
    sha256_add(&server->mask_digest, labels, NETWORK_COLUMNS);
    confidence_row(&server->work.mask.confidence, logits);
}

static void serve_meanwhile(void *context) {
    const struct server *server = context;
    server->board->serve();
}

/* Sends the mask in work.mask.labels. Its slice arrived at `start`. */
static void send_mask(struct server *server, uint32_t start) {
    uint8_t *const memory = (uint8_t *)network_input(), *const payload = memory + MASK_HEAD;
    const uint8_t *labels = server->work.mask.labels, *previous = server->has_previous ? server->previous : NULL;
    const uint8_t quality = confidence_finish(&server->work.mask.confidence);
    size_t size = 0;
    bool any = false;
    for (size_t i = 0; i < sizeof server->previous; i++) {
        any = any || labels[i] != 0;
    }
    if (any && server->mask_codec == MASK_RUNS) {
        size = mask_runs(labels, PIXELS, payload, PIXELS);
    } else if (any) {
        size = mask_change(labels, previous, NETWORK_ROWS, NETWORK_COLUMNS, memory + SCRATCH_AT, payload, serve_meanwhile,
                           server);
    }
    const uint32_t time = server->board->microseconds() - start;
    uint8_t head[MASK_HEAD], *at = head;
    at = put(at, any ? MASK : EMPTY, 1);
    if (any) {
        at = put(at, server->mask_codec, 1);
    }
    at = put(at, server->next, 2);
    at = put(at, quality, 1);
    at = put_varint(at, time);
    const size_t count = (size_t)(at - head);
    memcpy(payload - count, head, count);

    uint8_t digest[SHA256_SIZE];
    sha256_finish(&server->mask_digest, digest);
    (void)put(head, server->next, 4);
    sha256_add(&server->run_digest, head, 4);
    sha256_add(&server->run_digest, digest, sizeof digest);
    memcpy(server->previous, labels, sizeof server->previous);
    server->has_previous = true;
    server->masks++;
    server->run_time += time;
    send(server, payload - count, (uint32_t)(count + size));
    end_slice(server);
}

/* A modality that the case lacks has a z-score of 0 everywhere. */
static void fill_absent(const struct server *server) {
    for (unsigned channel = 0; channel < NETWORK_CHANNELS; channel++) {
        int8_t *at = network_input() + channel;
        for (unsigned i = 0; i < PIXELS && (server->absent >> channel & 1); i++) {
            at[(size_t)i * NETWORK_CHANNELS] = MODEL_ZERO_POINT;
        }
    }
}

static void handle_slice(struct server *server, uint32_t size) {
    const uint32_t start = server->board->microseconds();
    const unsigned codec = server->head[1];
    struct vp8 *vp8 = &server->work.image.vp8;
    bool decoded = false; /* what is in another codec is not */
    if (server->slice_fits && codec == LOSSY) {
        decoded = vp8_decode(vp8, server->work.image.payload, size - SLICE_HEAD, NETWORK_COLUMNS,
                             NETWORK_ROWS * server->channel_count, take_level, server);
    } else if (server->slice_fits && codec == RAW) {
        decoded = size - SLICE_HEAD == (uint32_t)PIXELS * server->channel_count;
    }
    if (!decoded) {
        fail_slice(server, server->slice_fits ? "the payload of this slice could not be decoded"
                                              : "the payload of this slice is larger than the board takes");
        return;
    }
    fill_absent(server);
    confidence_start(&server->work.mask.confidence, NETWORK_COLUMNS, MODEL_CONFIDENCE_FACTOR, NETWORK_ZERO_POINT);
    sha256_start(&server->mask_digest);
    network_segment(take_mask, serve_meanwhile, server);
    send_mask(server, start);
}

static void handle_choice(struct server *server) {
    const uint8_t *head = server->head;
    if (head[2] != SERVE) {
        refuse(server, "this board has no case to play; it only serves");
    } else if (head[4] > 15 || !(MASK_CODECS >> head[4] & 1)) {
        refuse(server, "this mask codec is not offered");
    } else if (head[3] > 15 || !(IMAGE_CODECS >> head[3] & 1)) {
        refuse(server, "this image codec is not offered");
    } else {
        server->chosen = true;
        server->mask_codec = head[4];
    }
}

static void handle_start(struct server *server) {
    const unsigned slices = u16(server->head + 2), first = u16(server->head + 4);
    const unsigned follows = server->head[1] & 15U, absent = server->head[1] >> 4;
    if (absent >> NETWORK_CHANNELS > 0) {
        refuse(server, "an absent channel that the network does not have");
        return;
    }
    if (follows != 0 || absent == (1U << NETWORK_CHANNELS) - 1 || slices == 0 || slices > MAX_SLICES || first >= slices) {
        refuse(server, "not understood; both ends need the same version of glioslice");
        return;
    }
    server->channel_count = 0;
    for (unsigned channel = 0; channel < NETWORK_CHANNELS; channel++) {
        if (!(absent >> channel & 1)) {
            server->channels[server->channel_count++] = (uint8_t)channel;
        }
    }
    server->absent = (uint8_t)absent;
    server->running = true;
    server->slices = (uint16_t)slices;
    server->next = (uint16_t)first;
    server->failed = server->masks = 0;
    server->run_time = 0;
    server->has_previous = false;
    sha256_start(&server->run_digest);
}

/* Handles the message whose first bytes are in `head`. */
static void handle(struct server *server, uint32_t size) {
    const unsigned type = server->head[0];
    if ((type == BOARD_HELLO || type == HOST_HELLO) && size > 1 && server->head[1] != VERSION) {
        refuse(server, "this board uses version 4 of the messages");
    } else if (type == HOST_HELLO && size == HOST_HELLO_SIZE) {
        if (server->running) {
            refuse(server, "a message out of turn");
        } else {
            handle_choice(server);
        }
    } else if (type == START && size == START_SIZE) {
        if (server->running || !server->chosen) {
            refuse(server, "a message out of turn");
        } else {
            handle_start(server);
        }
    } else if (type == SLICE && size >= SLICE_HEAD) {
        if (server->running && u16(server->head + 2) == server->next) {
            handle_slice(server, size);
        } else {
            const unsigned index = u16(server->head + 2);
            send_error(server, REFUSED, index < MAX_SLICES ? (int32_t)index : -1, "no slice of this index is expected");
        }
    } else if (type >= BOARD_HELLO && type <= EMPTY && type != HOST_HELLO && type != START && type != SLICE) {
        refuse(server, "a message out of turn");
    } else {
        refuse(server, "not understood; both ends need the same version of glioslice");
    }
}

/* Puts a piece of a Slice's payload where its codec wants it. */
static void store(struct server *server, uint32_t place, const uint8_t *bytes, uint32_t count) {
    const bool raw = server->head[1] == RAW;
    const uint32_t present = server->channel_count, size = raw ? (uint32_t)PIXELS * present : SERVER_PAYLOAD;
    if (!server->running || count > size || place > size - count) {
        server->slice_fits = false;
    } else if (!raw) {
        memcpy(server->work.image.payload + place, bytes, count);
    } else if (present == NETWORK_CHANNELS) {
        memcpy(network_input() + place, bytes, count);
    } else {
        for (uint32_t i = place; i < place + count; i++) {
            const size_t pixel = i / present;
            network_input()[pixel * NETWORK_CHANNELS + server->channels[i % present]] = (int8_t)bytes[i - place];
        }
    }
}

void server_receive(void *context, const struct wire_piece *piece) {
    struct server *server = context;
    if (piece->at == 0) {
        server->slice_fits = true;
    }
    for (uint32_t i = 0; i < piece->count && piece->at + i < sizeof server->head; i++) {
        server->head[piece->at + i] = piece->bytes[i];
    }
    if (server->head[0] == SLICE && piece->at + piece->count > SLICE_HEAD) {
        const uint32_t skipped = piece->at < SLICE_HEAD ? SLICE_HEAD - piece->at : 0;
        store(server, piece->at + skipped - SLICE_HEAD, piece->bytes + skipped, piece->count - skipped);
    }
    if (piece->at + piece->count == piece->size) {
        handle(server, piece->size);
    }
}

void server_init(struct server *server, struct wire_link *link, const struct server_board *board) {
    memset(server, 0, sizeof *server);
    server->link = link;
    server->board = board;
}

void server_restart(struct server *server) { server->greeted = server->chosen = server->running = false; }

bool server_step(struct server *server) {
    if (server->link->state == WIRE_OPEN && !server->greeted) {
        server->greeted = true;
        send_hello(server);
    }
    return wire_deliver(server->link);
}
