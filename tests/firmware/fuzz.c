/* What libFuzzer calls: TARGET is frames, link, messages, vp8 or masks. Built with sanitizers by test_fuzz.py. */
#include <stdlib.h>
#include <string.h>

#include "server.h"

#ifdef FUZZ_FRAMES
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t buffer[FRAME_BUFFER(FRAME_MAX_BODY)], frame[FRAME_BUFFER(FRAME_MAX_BODY)];
    struct frame_reader reader;
    frame_reader_init(&reader, buffer, sizeof buffer);
    for (size_t i = 0; i < size; i++) {
        (void)frame_reader_take(&reader, data[i]);
    }
    if (size == 0 || size > FRAME_MAX_BODY) {
        return 0;
    }
    memcpy(frame + FRAME_LEAD, data, size);
    const size_t count = frame_encode(frame, size);
    frame_reader_init(&reader, buffer, sizeof buffer);
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t body = frame_reader_take(&reader, frame[i]);
        found = body > 0 ? body : found;
    }
    if (found != size || memcmp(buffer, data, size) != 0) {
        abort(); /* what was encoded comes back */
    }
    return 0;
}
#endif

#if defined FUZZ_LINK || defined FUZZ_MESSAGES
enum { PAYLOAD = 128, WINDOW = 512, TRANSMIT = 512, SESSION = 0x1001, PEER = 0x2002 };
static struct wire_link end;
static uint8_t received[WINDOW], unacknowledged[TRANSMIT], in[WIRE_FRAME(PAYLOAD)], out[WIRE_FRAME(PAYLOAD)];
static uint32_t now;

/* Puts a packet into a frame and into the link: what an end with our session would send. */
static void take_packet(const uint8_t *body, size_t size) {
    static uint8_t frame[FRAME_BUFFER(FRAME_MAX_BODY)];
    memcpy(frame + FRAME_LEAD, body, size);
    wire_take(&end, frame, frame_encode(frame, size), now);
}

static void drain(void) {
    for (unsigned i = 0; i < 20 && wire_next_frame(&end, now) > 0; i++) {
    }
    (void)wire_due(&end, now);
}

static void open_session(void (*receive)(void *, const struct wire_piece *), void *context) {
    const uint8_t open[16] = {0x81, 2, PEER & 255, PEER >> 8, 0, 0, SESSION & 255, SESSION >> 8, 0, 0, 0, 4, 0, 128, 0, 0};
    const struct wire_settings settings = {false, PAYLOAD, WINDOW, TRANSMIT, received, unacknowledged, in, out, receive, context};
    now = 0xFFFFF000U;
    if (!wire_open(&end, &settings, SESSION)) {
        abort();
    }
    take_packet(open, sizeof open);
}
#endif

#ifdef FUZZ_LINK
static void ignore(void *context, const struct wire_piece *piece) {
    (void)context;
    if (piece->count == 0 || piece->at + piece->count > piece->size || piece->size > WIRE_MAX_MESSAGE) {
        abort();
    }
}

/* Each packet has a byte for its length, one for the time that passes, and its body, whose tag is put right. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    open_session(ignore, NULL);
    static const uint8_t message[300];
    (void)wire_send(&end, message, sizeof message);
    while (size > 2 + 3) {
        uint8_t body[256];
        size_t count = data[0];
        now += data[1] * 8U;
        data += 2;
        size -= 2;
        count = count < 3 ? 3 : count > size ? size : count;
        memcpy(body, data, count);
        if (body[0] % 8 > 1) {
            body[0] = (uint8_t)(0x80 | body[0] % 8);
            body[1] = (SESSION ^ PEER) & 255;
            body[2] = (SESSION ^ PEER) >> 8;
        }
        data += count;
        size -= count;
        take_packet(body, count);
        drain();
        while (count % 2 && wire_deliver(&end)) {
        }
        if (end.run_count > WIRE_RUNS || end.expected - end.taken > WINDOW || end.end - end.base > TRANSMIT) {
            abort();
        }
    }
    return 0;
}
#endif

#ifdef FUZZ_MESSAGES
static struct server server;
static uint32_t microseconds(void) { return now * 1000; }

/* Acknowledges all that the server sends, like a host. */
static void serve(void) {
    uint8_t ack[9] = {0x83, (SESSION ^ PEER) & 255, (SESSION ^ PEER) >> 8};
    now += 1;
    drain();
    for (unsigned i = 0; i < 3; i++) {
        ack[3 + i] = (uint8_t)(end.next >> 8 * i);
        ack[6 + i] = (uint8_t)((end.next + 1024) >> 8 * i);
    }
    take_packet(ack, sizeof ack);
}

static const struct server_board board = {1, microseconds, serve};

enum { SLICE = 4, HEAD = 4, MOST = 9000, EVERY = 128 };

/* Makes the next message from the input; returns its size. A length of MOST stands for a whole raw slice. With `whole`,
 * slices can be decoded, which takes a thousand times as long as all else. */
static size_t make_message(uint8_t **message, const uint8_t *data, size_t given, size_t length, bool whole) {
    const size_t raw = HEAD + (size_t)NETWORK_ROWS * NETWORK_COLUMNS * server.channel_count;
    const size_t count = length == MOST && whole ? raw : length == 0 ? 1 : length > given ? given : length;
    *message = malloc(count);
    for (size_t i = 0; i < count; i++) {
        (*message)[i] = data[i % given];
    }
    if (!whole && count > HEAD + 3 && (*message)[0] == SLICE) {
        (*message)[HEAD + 3] = 0; /* no VP8 image */
    }
    return count;
}

/* Each message has two bytes for its length. A session has HostHello and Start before the rest. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t begin[] = {2, 4, 1, 3, 3, 3, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    static unsigned inputs;
    const bool whole = inputs++ % EVERY < 3; /* libFuzzer begins with the corpus */
    open_session(server_receive, &server);
    server_init(&server, &end, &board);
    (void)server_step(&server);
    struct wire_piece piece = {.size = 5, .at = 0, .bytes = begin, .count = 5};
    server_receive(&server, &piece);
    piece = (struct wire_piece){.size = 14, .at = 0, .bytes = begin + 5, .count = 14};
    server_receive(&server, &piece);
    while (size > 2) {
        uint8_t *copy;
        const size_t length = (data[0] | (size_t)data[1] << 8) % (MOST + 1);
        const size_t count = make_message(&copy, data + 2, size - 2, length, whole);
        data += 2;
        size -= 2;
        piece = (struct wire_piece){.size = (uint32_t)count, .at = 0, .bytes = copy, .count = (uint32_t)(count / 2)};
        if (piece.count > 0) {
            server_receive(&server, &piece);
        }
        piece.at = piece.count;
        piece.bytes = copy + piece.at;
        piece.count = piece.size - piece.at;
        server_receive(&server, &piece);
        free(copy);
        data += count < size ? count : size;
        size -= count < size ? count : size;
    }
    return 0;
}
#endif

#ifdef FUZZ_VP8
static void ignore(void *context, unsigned row, const uint8_t *levels) {
    (void)context;
    (void)row;
    if (vp8_value(levels[0]) == 1 && vp8_value(levels[31]) == 2) {
        return;
    }
}

/* The header is put right, so that the rest is read: two rows of two macroblocks. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct vp8 vp8;
    if (size < 10) {
        return 0;
    }
    uint8_t *copy = malloc(size);
    memcpy(copy, data, size);
    if (copy[9] < 240) {
        const size_t rest = size - 10, first = rest * copy[4] / 256;
        const uint8_t header[10] = {(uint8_t)(16 | (first & 7) << 5), (uint8_t)(first >> 3), (uint8_t)(first >> 11), 0x9D, 1, 0x2A, 32, 0, 32, 0};
        memcpy(copy, header, sizeof header);
    }
    (void)vp8_decode(&vp8, copy, size, 32, 32, ignore, NULL);
    free(copy);
    return 0;
}
#endif

#ifdef FUZZ_MASKS
static void wait(void *context) { (void)context; }

/* Two masks of up to 12 x 12 pixels: larger ones reach no other line. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3) {
        return 0;
    }
    const unsigned rows = 1 + data[0] % 12, columns = 1 + data[1] % 12, pixels = rows * columns;
    const bool alone = data[2] & 1;
    data += 3;
    size -= 3;
    const size_t bytes = MASK_BYTES(rows, columns);
    uint8_t *masks = calloc(2, bytes), *out = malloc(pixels + 64), *scratch = malloc(MASK_SCRATCH(rows, columns));
    memcpy(masks, data, size < 2 * bytes ? size : 2 * bytes);
    for (size_t i = pixels; i < 4 * bytes; i++) {
        mask_set(masks, i, 0);
        mask_set(masks + bytes, i, 0);
    }
    if (mask_change(masks, alone ? NULL : masks + bytes, rows, columns, scratch, out, wait, NULL) > bytes ||
        mask_runs(masks, pixels, out, pixels) == 0) {
        abort();
    }
    free(masks);
    free(out);
    free(scratch);
    return 0;
}
#endif
