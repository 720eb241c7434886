"""The wire: slices to a board and masks back over a serial line, floor by floor.

    codecs       images and masks as bytes (vp8l)
    messages     what the two ends say (hello, volume, digest, layout)
    connection   a link that runs over a port: open, send, receive, flush, close
    link         frames to a reliable ordered stream of messages (sender, receiver, tuning, packets,
                 state)
    frames       bytes to frames
    ports        where bytes come from (sim, sim_url, cable, lane, pair, transport)

Each floor knows only those below it. `virtual` joins two links in virtual time, with what `faults`
makes of their frames, for tests and soak runs. `docs/wire.md` is the specification.
"""
