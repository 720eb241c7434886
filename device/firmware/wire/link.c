#include "link.h"

#include <string.h>

enum { OPEN = 1, DATA = 2, ACK = 3, CLOSE = 4, FROM_ACTIVE = 0x80 };
enum { FREE, FLYING, LOST };
enum {
    OPEN_SIZE = 16,
    CLOSE_SIZE = 3,
    ACK_SIZE = 9,
    CLOSES = 3,
    OPEN_INTERVAL = 250,
    KEEP_ALIVE = 1000,
    ACK_DELAY = 20,
    ACK_BYTES = 4096,
    FIRST_TIMEOUT = 500,
    MIN_TIMEOUT = 100,
    MAX_BACKOFF = 1000,
    OVERHEAD = 18, /* bytes of a frame around its payload */
    ONE = 65536    /* a share of 1 */
};

static uint32_t u16(const uint8_t *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }
static uint32_t u24(const uint8_t *at) { return u16(at) | (uint32_t)at[2] << 16; }
static uint32_t u32(const uint8_t *at) { return u24(at) | (uint32_t)at[3] << 24; }

static uint8_t *put(uint8_t *at, uint32_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) {
        *at++ = (uint8_t)(value >> 8 * i);
    }
    return at;
}

/* Positions and times wrap around: a is after b if it is less than half of their range ahead. */
static bool after(uint32_t a, uint32_t b) { return a - b - 1 < 0x7FFFFFFFU; }
static uint32_t later(uint32_t a, uint32_t b) { return after(a, b) ? a : b; }
static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* The position whose low 24 bits are `wire` and which is nearest to `near`. */
static uint32_t expand(uint32_t wire, uint32_t near) {
    const uint32_t ahead = (wire - near) & 0xFFFFFFU;
    return ahead < 0x800000U ? near + ahead : near + ahead - 0x1000000U;
}

static bool is_power_of_two(uint32_t value) { return value != 0 && (value & (value - 1)) == 0; }

static void copy_in(uint8_t *ring, uint32_t size, uint32_t position, const uint8_t *bytes, uint32_t count) {
    const uint32_t start = position & (size - 1), first = least(count, size - start);
    memcpy(ring + start, bytes, first);
    memcpy(ring, bytes + first, count - first);
}

static void copy_out(const uint8_t *ring, uint32_t size, uint32_t position, uint8_t *bytes, uint32_t count) {
    const uint32_t start = position & (size - 1), first = least(count, size - start);
    memcpy(bytes, ring + start, first);
    memcpy(bytes + first, ring, count - first);
}

/* Returns a bit for each value that links alter (see OPEN in docs/wire.md) and that is among these bytes. */
static uint32_t altered(const uint8_t *bytes, size_t count) {
    static const uint8_t values[] = {0x0A, 0x0D, 0x11, 0x13, 0x15, 0x17, 0x1A, 0x1C, 0x7F, 0xFF};
    uint32_t found = 0;
    for (size_t i = 0; i < count; i++) {
        for (unsigned value = 0; value < sizeof values; value++) {
            found |= (uint32_t)(bytes[i] == values[value]) << value;
        }
    }
    return found;
}

uint32_t wire_session(uint32_t number) {
    for (unsigned shift = 0; shift < 32; shift += 8) {
        const uint8_t byte = (uint8_t)(number >> shift);
        number ^= (uint32_t)(altered(&byte, 1) != 0) << shift; /* none becomes another */
    }
    return number;
}

bool wire_open(struct wire_link *link, const struct wire_settings *settings, uint32_t session) {
    const bool fits = settings->payload >= WIRE_MIN_PAYLOAD && settings->payload <= WIRE_MAX_PAYLOAD &&
                      settings->window >= settings->payload && is_power_of_two(settings->window) &&
                      settings->transmit >= WIRE_MIN_PAYLOAD && is_power_of_two(settings->transmit) && session != 0;
    if (!fits) {
        return false;
    }
    memset(link, 0, sizeof *link);
    link->settings = *settings;
    link->session = session;
    link->open_due = settings->active;
    link->size = link->largest = settings->payload;
    link->timeout = FIRST_TIMEOUT;
    link->backoff = 1;
    frame_reader_init(&link->reader, settings->frame_in, (uint16_t)WIRE_FRAME(settings->payload));
    return true;
}

void wire_close(struct wire_link *link) {
    if (link->state == WIRE_OPEN) {
        link->closes = CLOSES;
    }
    link->state = WIRE_CLOSED;
}

/* ---- receiving ---- */

static uint32_t own_edge(const struct wire_link *link) { return link->taken + link->settings.window; }

/* Merges a stretch beyond the expected byte into the runs; false if there is no place for it. */
static bool place(struct wire_link *link, uint32_t low, uint32_t high) {
    unsigned kept = 0, at = 0;
    struct wire_run merged[WIRE_RUNS + 1];
    for (unsigned i = 0; i < link->run_count; i++) {
        const struct wire_run run = link->runs[i];
        if (after(low, run.stop)) { /* before the new one */
            merged[kept++] = run;
            at = kept;
        } else if (after(run.start, high)) {
            merged[kept++] = run;
        } else {
            if (!after(run.start, low) && !after(high, run.stop)) {
                link->duplicates++;
            }
            low = after(run.start, low) ? low : run.start;
            high = later(high, run.stop);
        }
    }
    if (kept == WIRE_RUNS) {
        return false;
    }
    memmove(&merged[at + 1], &merged[at], (kept - at) * sizeof *merged);
    merged[at] = (struct wire_run){low, high};
    link->run_count = (uint8_t)(kept + 1);
    memcpy(link->runs, merged, link->run_count * sizeof *merged);
    return true;
}

/* Adds a piece of the stream; returns whether it calls for an acknowledgement at once. */
static bool add(struct wire_link *link, uint32_t offset, const uint8_t *bytes, uint32_t count) {
    const uint32_t stop = offset + count;
    if (!after(stop, link->expected)) {
        link->duplicates++;
        return true;
    }
    if (after(stop, own_edge(link))) {
        return false;
    }
    if (after(link->expected, offset)) {
        bytes += link->expected - offset;
        offset = link->expected;
    }
    const unsigned before = link->run_count;
    if (offset != link->expected) {
        if (!place(link, offset, stop)) {
            return true;
        }
        copy_in(link->settings.received, link->settings.window, offset, bytes, stop - offset);
        return link->run_count != before;
    }
    copy_in(link->settings.received, link->settings.window, offset, bytes, stop - offset);
    link->expected = stop;
    while (link->run_count > 0 && !after(link->runs[0].start, link->expected)) {
        link->expected = later(link->expected, link->runs[0].stop);
        link->run_count--;
        memmove(link->runs, link->runs + 1, link->run_count * sizeof *link->runs);
    }
    return before > 0;
}

/* Reads the length of the next message; false if it is not complete. */
static bool read_length(struct wire_link *link) {
    uint32_t size = 0;
    for (unsigned i = 0; i < WIRE_LENGTH; i++) {
        if (link->taken + i == link->expected) {
            return false;
        }
        const uint8_t byte = link->settings.received[(link->taken + i) & (link->settings.window - 1U)];
        size |= (byte & 0x7FU) << 7 * i;
        if (byte < 0x80) {
            if (size == 0 || size > WIRE_MAX_MESSAGE) {
                break;
            }
            link->taken += i + 1;
            link->message_size = size;
            link->message_at = 0;
            return true;
        }
    }
    link->state = WIRE_REFUSED;
    return false;
}

bool wire_deliver(struct wire_link *link) {
    if (link->state == WIRE_REFUSED || link->state == WIRE_OPENING) {
        return false;
    }
    if (link->message_at == link->message_size && !read_length(link)) {
        return false;
    }
    const uint32_t window = link->settings.window, start = link->taken & (window - 1);
    const uint32_t arrived = least(link->expected - link->taken, window - start);
    const struct wire_piece piece = {
        .size = link->message_size,
        .at = link->message_at,
        .bytes = link->settings.received + start,
        .count = least(arrived, link->message_size - link->message_at),
    };
    if (piece.count == 0) {
        return false;
    }
    link->settings.receive(link->settings.context, &piece);
    link->message_at += piece.count;
    link->taken += piece.count;
    return true;
}

/* ---- sending ---- */

uint32_t wire_room(const struct wire_link *link) { return link->settings.transmit - (link->end - link->base); }

uint32_t wire_write(struct wire_link *link, const uint8_t *bytes, uint32_t count) {
    count = least(count, wire_room(link));
    copy_in(link->settings.unacknowledged, link->settings.transmit, link->end, bytes, count);
    link->end += count;
    return count;
}

bool wire_write_length(struct wire_link *link, uint32_t size) {
    uint8_t length[WIRE_LENGTH];
    uint32_t count = 0;
    if (size == 0 || size > WIRE_MAX_MESSAGE) {
        return false;
    }
    for (; size > 0x7F; size >>= 7) {
        length[count++] = (uint8_t)(size | 0x80);
    }
    length[count++] = (uint8_t)size;
    return wire_room(link) >= count && wire_write(link, length, count) == count;
}

bool wire_send(struct wire_link *link, const uint8_t *bytes, uint32_t count) {
    const uint32_t length = count > 0x3FFF ? 3 : count > 0x7F ? 2 : 1;
    return wire_room(link) >= length + count && wire_write_length(link, count) && wire_write(link, bytes, count) == count;
}

/* A share of lost frames above which frames of half the size carry more. */
static uint32_t too_many(uint32_t size) {
    const uint32_t ratio = ((size + OVERHEAD) << 15) / (size + 2 * OVERHEAD);
    return ONE - (ratio * ratio >> 14);
}

/* A share below which frames may be twice as large. */
static uint32_t few(uint32_t size) { return OVERHEAD * (ONE / 4) / (size + OVERHEAD); }

/* Counts a frame that was lost or not, and adapts the size of the next ones. */
static void adapt(struct wire_link *link, bool lost) {
    link->loss = link->loss - link->loss / 64 + (lost ? ONE / 64 : 0);
    if (link->loss > too_many(link->size) && link->size > WIRE_MIN_PAYLOAD) {
        link->size = (uint16_t)(link->size / 2 > WIRE_MIN_PAYLOAD ? link->size / 2 : WIRE_MIN_PAYLOAD);
    } else if (link->loss < few(link->size) && link->size < link->largest) {
        link->size = (uint16_t)least(2U * link->size, link->largest);
    } else {
        return;
    }
    link->loss = (too_many(link->size) + few(link->size)) / 2;
}

/* Updates the time-out by a round trip (RFC 6298, section 2). */
static void add_round_trip(struct wire_link *link, uint32_t sample) {
    if (link->shortest == 0 && link->smoothed == 0) {
        link->smoothed = 8 * sample; /* eight times the time */
        link->variation = 2 * sample; /* four times the variation, which is half of it */
        link->shortest = sample;
    } else {
        const uint32_t mean = link->smoothed / 8, error = sample > mean ? sample - mean : mean - sample;
        link->variation += error - link->variation / 4;
        link->smoothed += sample - mean;
    }
    link->shortest = least(link->shortest, sample);
    const uint32_t timeout = link->smoothed / 8 + link->variation;
    link->timeout = timeout > MIN_TIMEOUT ? timeout : MIN_TIMEOUT;
}

static void mark_lost(struct wire_link *link, struct wire_segment *segment) {
    segment->state = LOST;
    adapt(link, true);
}

/* Removes a segment that has arrived; returns its order, 0 if the acknowledgement may be for an earlier
 * transmission of it. Segments sent before that one are lost. */
static uint32_t remove_arrived(struct wire_link *link, struct wire_segment *segment, uint32_t now) {
    const bool flying = segment->state == FLYING;
    segment->state = FREE;
    if (!flying) {
        return 0;
    }
    adapt(link, false);
    const uint32_t age = now - segment->sent_at;
    if (segment->tries == 1) {
        add_round_trip(link, age);
    } else if (age < link->shortest) {
        return 0;
    }
    return segment->order;
}

/* Notes that all bytes before `upto` have arrived, and those of the pairs of an ACK. With `complete`, which
 * a DATA is not, no others have. */
static void acknowledge(struct wire_link *link, uint32_t upto, const uint8_t *pairs, unsigned count, bool complete,
                        uint32_t now) {
    if (upto - link->base > link->next - link->base) {
        return; /* an impossible position */
    }
    uint32_t latest = 0, known = upto;
    bool progress = upto != link->base, measured = false;
    for (unsigned i = 0; i < WIRE_SEGMENTS; i++) {
        struct wire_segment *segment = &link->segments[i];
        if (segment->state == FREE) {
            continue;
        }
        const uint32_t stop = segment->start + segment->size;
        bool arrived = !after(stop, upto);
        uint32_t at = upto;
        for (unsigned pair = 0; pair < count; pair++) {
            const uint32_t start = at + u16(pairs + 4 * pair);
            at = start + u16(pairs + 4 * pair + 2);
            arrived = arrived || (!after(start, segment->start) && !after(stop, at));
        }
        known = at;
        if (arrived) {
            measured = measured || segment->tries == 1;
            const uint32_t order = remove_arrived(link, segment, now);
            latest = order > latest ? order : latest;
            progress = true;
        }
    }
    if (measured) {
        link->backoff = 1;
    }
    if (progress) {
        link->stalled = false;
        link->progress_at = now;
        link->has_progress = true;
    }
    link->base = upto;
    for (unsigned i = 0; i < WIRE_SEGMENTS; i++) {
        struct wire_segment *segment = &link->segments[i];
        if (segment->state == FLYING && segment->order < latest &&
            (complete || !after(segment->start + segment->size, known))) {
            mark_lost(link, segment);
        }
    }
}

/* Returns the place of the first segment of the stream in this state, WIRE_SEGMENTS if there is none. */
static unsigned find(const struct wire_link *link, unsigned state) {
    unsigned first = WIRE_SEGMENTS;
    for (unsigned i = 0; i < WIRE_SEGMENTS; i++) {
        const struct wire_segment *segment = &link->segments[i];
        if (segment->state == state &&
            (first == WIRE_SEGMENTS || after(link->segments[first].start, segment->start))) {
            first = i;
        }
    }
    return first;
}

static bool is_flying(const struct wire_link *link) { return find(link, FLYING) < WIRE_SEGMENTS; }

/* How many new bytes the next segment holds: whole segments, or the rest of what there is. */
static uint32_t new_bytes(const struct wire_link *link) {
    const uint32_t waiting = link->end - link->next, size = least(waiting, link->size);
    const uint32_t allowed = after(link->edge, link->next) ? link->edge - link->next : 0;
    if (allowed < size && is_flying(link)) {
        return 0; /* the edge will move */
    }
    return least(size, allowed);
}

/* Returns the segment to send now, or NULL. */
static struct wire_segment *next_segment(struct wire_link *link) {
    const unsigned lost = find(link, LOST), spare = find(link, FREE);
    struct wire_segment *rest = &link->segments[spare < WIRE_SEGMENTS ? spare : 0];
    if (lost < WIRE_SEGMENTS) {
        struct wire_segment *segment = &link->segments[lost];
        if (segment->size > link->size && spare < WIRE_SEGMENTS) { /* frames have become shorter since */
            *rest = *segment;
            rest->start += link->size;
            rest->size = (uint16_t)(rest->size - link->size);
            segment->size = link->size;
        }
        link->retransmits++;
        return segment;
    }
    const uint32_t size = new_bytes(link);
    if (size == 0 || spare == WIRE_SEGMENTS) {
        return NULL;
    }
    *rest = (struct wire_segment){.start = link->next, .size = (uint16_t)size};
    link->next += size;
    return rest;
}

static bool is_sendable(const struct wire_link *link) {
    return find(link, LOST) < WIRE_SEGMENTS || (new_bytes(link) > 0 && find(link, FREE) < WIRE_SEGMENTS);
}

/* Returns the time of the next time-out; call it only while something is in flight. */
static uint32_t timeout_at(const struct wire_link *link) {
    bool any = link->has_progress;
    uint32_t last = link->progress_at;
    for (unsigned i = 0; i < WIRE_SEGMENTS; i++) {
        if (link->segments[i].state == FLYING) {
            last = any ? later(last, link->segments[i].sent_at) : link->segments[i].sent_at;
            any = true;
        }
    }
    const uint32_t most = link->timeout > MAX_BACKOFF ? link->timeout : MAX_BACKOFF;
    return last + (link->timeout > most / link->backoff ? most : link->timeout * link->backoff);
}

/* Marks the oldest segment as lost, at a second time-out without progress all of them. */
static void time_out(struct wire_link *link) {
    struct wire_segment *oldest = NULL;
    for (unsigned i = 0; i < WIRE_SEGMENTS; i++) {
        struct wire_segment *segment = &link->segments[i];
        if (segment->state != FLYING) {
            continue;
        }
        if (link->stalled) {
            mark_lost(link, segment);
        } else if (oldest == NULL || segment->order < oldest->order) {
            oldest = segment;
        }
    }
    if (oldest != NULL) {
        mark_lost(link, oldest);
    }
    link->stalled = true;
    if (link->backoff < 1024) {
        link->backoff *= 2;
    }
}

/* ---- the session ---- */

/* The first OPEN of an active end is due at once, whatever the time. */
static uint32_t open_time(const struct wire_link *link, uint32_t now) { return link->has_opened ? link->open_at : now; }

static void send_open_soon(struct wire_link *link, uint32_t now) {
    const bool recent = link->has_opened && now - link->opened_at < OPEN_INTERVAL;
    const uint32_t at = recent ? link->opened_at + OPEN_INTERVAL : now;
    if (!link->open_due || after(open_time(link, now), at)) {
        link->open_at = at;
    }
    link->open_due = true;
}

static void acknowledge_at(struct wire_link *link, uint32_t at) {
    if (!link->ack_due || after(link->ack_at, at)) {
        link->ack_at = at;
    }
    link->ack_due = true;
}

static void enter_open(struct wire_link *link, uint32_t now) {
    link->state = WIRE_OPEN;
    link->open_due = false;
    acknowledge_at(link, now);
}

static void receive_open(struct wire_link *link, const uint8_t *body, size_t size, uint32_t now) {
    if (size >= 2 && body[1] != WIRE_VERSION) {
        if (link->settings.active) {
            link->state = WIRE_REFUSED;
        } else {
            send_open_soon(link, now); /* so that the active end can name both versions */
        }
        return;
    }
    const bool complete = size == OPEN_SIZE;
    const uint32_t session = complete ? u32(body + 2) : 0, payload = complete ? u16(body + 10) : 0;
    const uint32_t window = complete ? u16(body + 12) : 0;
    if (session == 0 || payload < WIRE_MIN_PAYLOAD || payload > WIRE_MAX_PAYLOAD || window < payload) {
        link->ignored++;
        return;
    }
    link->last_received = now;
    if (link->state == WIRE_OPEN && session != link->peer) {
        link->state = WIRE_RESTARTED;
        return;
    }
    if (session != link->peer) {
        link->peer = session;
        link->tag = (uint16_t)(link->session ^ session);
        link->size = link->largest = (uint16_t)least(link->settings.payload, payload);
        link->edge = window;
        link->edge_sent = link->settings.window;
    }
    if (u32(body + 6) == link->session) {
        if (link->state == WIRE_OPENING) {
            enter_open(link, now);
        } else if (link->settings.active) {
            send_open_soon(link, now); /* our ACK did not arrive, and perhaps never will */
        }
        acknowledge_at(link, now);
    } else if (link->state == WIRE_OPENING) {
        link->open_due = true;
        link->open_at = now;
    } else {
        send_open_soon(link, now);
    }
}

/* Processes DATA, ACK or CLOSE of the session. */
static void receive_of_session(struct wire_link *link, const uint8_t *body, size_t size, uint32_t now) {
    link->last_received = now;
    if (link->state == WIRE_OPENING) {
        enter_open(link, now);
    }
    const unsigned kind = body[0] & ~(unsigned)FROM_ACTIVE;
    if (kind == CLOSE) {
        link->state = WIRE_CLOSED;
    } else if (kind == ACK) {
        const unsigned pairs = (unsigned)(size - ACK_SIZE) / 4;
        const uint32_t edge = expand(u24(body + 6), link->base);
        link->edge = later(link->edge, edge);
        acknowledge(link, expand(u24(body + 3), link->base), body + ACK_SIZE, pairs, pairs < WIRE_MAX_PAIRS, now);
    } else if (kind == DATA) {
        acknowledge(link, expand(u24(body + 6), link->base), NULL, 0, false, now);
        const uint32_t count = (uint32_t)size - WIRE_DATA_HEADER;
        const bool urgent = add(link, expand(u24(body + 3), link->expected), body + WIRE_DATA_HEADER, count);
        const bool many = link->expected - link->acknowledged >= least(ACK_BYTES, link->settings.window / 2U);
        acknowledge_at(link, urgent || many ? now : now + ACK_DELAY);
    }
}

/* Whether a packet that is not an OPEN has a length that its kind can have. */
static bool is_packet(const uint8_t *body, size_t size) {
    switch (body[0] & ~(unsigned)FROM_ACTIVE) {
    case DATA:
        return size > WIRE_DATA_HEADER && size <= WIRE_DATA_HEADER + WIRE_MAX_PAYLOAD;
    case ACK:
        return size >= ACK_SIZE && (size - ACK_SIZE) % 4 == 0 && size <= WIRE_MAX_ACK;
    case CLOSE:
        return size == CLOSE_SIZE;
    default:
        return false; /* among them RATE and PROBE, which nobody sends to an end with a fixed rate */
    }
}

static void receive_body(struct wire_link *link, const uint8_t *body, size_t size, uint32_t now) {
    const unsigned kind = body[0] & ~(unsigned)FROM_ACTIVE;
    const bool live = link->state == WIRE_OPENING || link->state == WIRE_OPEN;
    if (((body[0] & FROM_ACTIVE) != 0) == link->settings.active) {
        link->echoes++;
    } else if (kind == OPEN) {
        if (live) {
            receive_open(link, body, size, now);
        }
    } else if (!is_packet(body, size)) {
        link->ignored++;
    } else if (live && link->peer != 0 && u16(body + 1) == link->tag) {
        receive_of_session(link, body, size, now);
    } else {
        link->ignored++;
        if (link->state == WIRE_OPENING && !link->settings.active && kind != CLOSE) {
            send_open_soon(link, now); /* the peer still uses the session before our restart */
        }
    }
}

void wire_take(struct wire_link *link, const uint8_t *bytes, size_t count, uint32_t now) {
    for (size_t i = 0; i < count; i++) {
        const size_t size = frame_reader_take(&link->reader, bytes[i]);
        if (size > 0) {
            receive_body(link, link->reader.buffer, size, now);
        }
    }
}

static bool edge_has_moved(const struct wire_link *link) {
    return own_edge(link) - link->edge_sent >= link->settings.window / 4U;
}

static uint8_t *put_head(struct wire_link *link, unsigned kind) {
    uint8_t *at = link->settings.frame_out + FRAME_LEAD;
    *at++ = (uint8_t)(kind | (link->settings.active ? FROM_ACTIVE : 0));
    return kind == OPEN ? at : put(at, link->tag, 2);
}

static uint8_t *put_offer(struct wire_link *link, uint32_t window) {
    uint8_t *at = put_head(link, OPEN);
    *at++ = WIRE_VERSION;
    at = put(at, link->session, 4);
    at = put(at, link->peer, 4);
    at = put(at, link->settings.payload, 2);
    at = put(at, window, 2);
    return put(at, 0, 2); /* the baud rate is fixed */
}

/* Returns the window to offer: a smaller one changes the checksum, so that the frame holds as few values that links
 * alter as the other fields allow. */
static uint32_t crossing_window(struct wire_link *link) {
    uint8_t *frame = link->settings.frame_out;
    const uint32_t own = link->settings.window, half = own / 2, payload = link->settings.payload;
    const uint32_t step = least(256, own / 32);
    uint32_t best = own, fewest = UINT32_MAX;
    (void)put_offer(link, 0);
    const uint32_t needed = altered(frame + FRAME_LEAD, OPEN_SIZE);
    for (uint32_t window = own; window > half && window >= payload && fewest > 0; window -= step) {
        (void)put_offer(link, window);
        uint32_t found = 0;
        for (uint32_t left = altered(frame, frame_encode(frame, OPEN_SIZE)) & ~needed; left != 0; left &= left - 1) {
            found++;
        }
        if (found < fewest) {
            fewest = found;
            best = window;
        }
    }
    return best;
}

static uint8_t *put_open(struct wire_link *link, uint32_t now) {
    link->open_due = link->state == WIRE_OPENING && (link->settings.active || link->peer != 0);
    link->open_at = now + OPEN_INTERVAL;
    link->opened_at = now;
    link->has_opened = true;
    return put_offer(link, crossing_window(link));
}

static uint8_t *put_ack(struct wire_link *link) {
    link->ack_due = false;
    link->acknowledged = link->expected;
    link->edge_sent = own_edge(link);
    uint8_t *at = put_head(link, ACK);
    at = put(at, link->expected, 3);
    at = put(at, link->edge_sent, 3);
    uint32_t position = link->expected;
    for (unsigned i = 0; i < link->run_count; i++) {
        at = put(at, link->runs[i].start - position, 2);
        at = put(at, link->runs[i].stop - link->runs[i].start, 2);
        position = link->runs[i].stop;
    }
    return at;
}

static uint8_t *put_data(struct wire_link *link, struct wire_segment *segment, uint32_t now) {
    link->has_progress = link->has_progress && is_flying(link); /* if not, it may be days ago */
    segment->state = FLYING;
    segment->order = ++link->order;
    segment->sent_at = now;
    segment->tries = (uint8_t)(segment->tries < 255 ? segment->tries + 1 : 255);
    link->ack_due = link->ack_due && link->run_count > 0;
    link->acknowledged = link->expected;
    uint8_t *at = put_head(link, DATA);
    at = put(at, segment->start, 3);
    at = put(at, link->expected, 3);
    copy_out(link->settings.unacknowledged, link->settings.transmit, segment->start, at, segment->size);
    return at + segment->size;
}

size_t wire_next_frame(struct wire_link *link, uint32_t now) {
    uint8_t *end = NULL;
    const bool live = link->state == WIRE_OPENING || link->state == WIRE_OPEN;
    if (link->closes > 0) {
        link->closes--;
        end = put_head(link, CLOSE);
    } else if (live && link->open_due && !after(open_time(link, now), now)) {
        end = put_open(link, now);
    } else if (link->state == WIRE_OPEN) {
        if (is_flying(link) && !after(timeout_at(link), now)) {
            time_out(link);
        }
        const bool ack = (link->ack_due && !after(link->ack_at, now)) || now - link->last_sent >= KEEP_ALIVE;
        struct wire_segment *segment = NULL;
        if (!edge_has_moved(link) && !(ack && link->run_count > 0)) {
            segment = next_segment(link);
        }
        if (segment != NULL) {
            end = put_data(link, segment, now);
        } else if (edge_has_moved(link) || ack) {
            end = put_ack(link);
        }
    }
    if (end == NULL) {
        return 0;
    }
    link->last_sent = now;
    return frame_encode(link->settings.frame_out, (size_t)(end - (link->settings.frame_out + FRAME_LEAD)));
}

static uint32_t wait_for(uint32_t time, uint32_t now) { return after(time, now) ? time - now : 0; }

uint32_t wire_due(const struct wire_link *link, uint32_t now) {
    uint32_t wait = UINT32_MAX;
    if (link->closes > 0) {
        return 0;
    }
    if (link->state != WIRE_OPENING && link->state != WIRE_OPEN) {
        return wait;
    }
    if (link->open_due) {
        wait = wait_for(open_time(link, now), now);
    }
    if (link->state == WIRE_OPENING) {
        return wait;
    }
    if (edge_has_moved(link) || is_sendable(link)) {
        return 0;
    }
    if (link->ack_due) {
        wait = least(wait, wait_for(link->ack_at, now));
    }
    if (is_flying(link)) {
        wait = least(wait, wait_for(timeout_at(link), now));
    }
    return least(wait, wait_for(link->last_sent + KEEP_ALIVE, now));
}
