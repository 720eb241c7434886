"""Stream a case to a simulated board: python examples/stream_to_simulated_board.py CASE MASK."""

import sys

import numpy as np

import glioslice
from glioslice import codecs, messages, preprocessing

case = glioslice.read_case(sys.argv[1])
board = [sys.executable, "-m", "device", "--port", "{port}"]
port = glioslice.open_port("sim://?baud=3000000", command=board)  # a real one: "/dev/ttyUSB0"
with glioslice.Connection(port, active=True) as link:
    link.open(timeout=60)
    hello = messages.receive(link)
    assert isinstance(hello, messages.BoardHello)
    images = case.images[[glioslice.MODALITIES.index(name) for name in hello.modalities]]
    slices, crop = preprocessing.slice_volume(images, hello.window, hello.clip)
    inputs = preprocessing.quantize(slices, hello.scale, hello.zero_point)
    codec = codecs.choose(hello.image_codecs, codecs.LOSSLESS)
    messages.send(link, messages.HostHello(messages.Mode.SERVE, codec, codecs.RUNS))
    messages.send(link, messages.Start(len(inputs)))
    masks = np.zeros(inputs.shape[:3], np.uint8)
    for index, image in enumerate(inputs):
        messages.send(link, messages.Slice(index, codec, codecs.encode_image(codec, image)))
        reply = messages.receive(link)
        if isinstance(reply, messages.Mask):  # otherwise the mask is empty
            masks[index] = codecs.decode_mask(reply.codec, reply.payload, hello.window)
labels = glioslice.to_scheme(preprocessing.restore_volume(masks, crop), case.scheme)
glioslice.write_mask(sys.argv[2], labels, case.space)
