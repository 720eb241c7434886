"""The serial protocol: slices to a board and masks back over a serial link, in five layers.

    codecs     images and masks as bytes (image_codecs, mask_codecs)
    messages   what the two ends exchange (hello)
    link       frames to a reliable ordered stream of messages (packets, sender, receiver,
               baud_negotiation); `connection` runs it over a port
    framing    bytes to frames
    transport  the contract of a port (ports, simulator)

Each layer knows only those below it. `layout` holds what several of them share. Beside them are
`capture`, `replay`, `sniffer` and `dump`, which record sessions and read recordings.
`docs/wire.md` is the specification.
"""
