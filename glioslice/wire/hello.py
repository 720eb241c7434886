"""The handshake: what a board offers, and what the host chooses of it."""

import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from glioslice.errors import GliosliceError
from glioslice.wire.layout import MAX_SIDE, VersionError, require, unpack_fields

VERSION = 4
WIRE_MODALITIES = ("t1", "t1ce", "t2", "flair")
"""Numbered from 1 on the wire; 0 is none."""

OWN_LABELS = 1
"""0 background, 1 core (necrotic and non-enhancing), 2 edema, 3 enhancing; ET in TC in WT."""


NAME_LENGTH = 16
"""Bytes for the name of a model."""

KERNELS = ("unknown", "reference", "XNNPACK")
"""Whose arithmetic computes, numbered from 0: the same file gives other masks on other kernels."""

MIRRORING = 1
"""Bit of BoardHello's flags: the board averages each slice with its mirror image."""


class Mode(IntEnum):
    """Who holds the volume: the host (the board serves) or the board (it plays)."""

    SERVE = 1
    PLAY = 2


def check_version(data: bytes) -> None:
    """Raise VersionError if a hello, whose second byte is its version, is of another version."""
    if len(data) >= 2 and data[1] != VERSION:
        older = "far end" if data[1] < VERSION else "near end"
        raise VersionError(
            f"the far end uses version {data[1]} of the protocol, this side version {VERSION}; "
            f"install the newer glioslice at the {older}"
        )


def check_model_name(name: str, where: object) -> None:
    """Raise GliosliceError, which names `where`, if BoardHello cannot hold the name of a model."""
    if not (0 < len(name) <= NAME_LENGTH and all("!" <= letter <= "~" for letter in name)):
        raise GliosliceError(
            f"{where}: the model's name is {name!r}; expected 1 to {NAME_LENGTH} ASCII characters "
            "without spaces"
        )


@dataclass(frozen=True)
class BoardHello:
    """What a board is and can do, and what it remembers of an interrupted run. 98 bytes.

    0   u8       type 1
    1   u8       version 4
    2   u8       modes: bit 0 serve, bit 1 play
    3   u8       labels of its masks: 1 = those of glioslice.labels
    4   u16 x 2  window X, Y in voxels of 1 mm
    8   u8       slices that the network sees at once (1: no neighbours)
    9   u8 x 4   modalities in the order of the channels: 1 t1, 2 t1ce, 3 t2, 4 flair, 0 none
    13  i8       zero point of the input
    14  f32      scale of the input: int8 = round(z-score / scale) + zero point
    18  f32      clip: z-scores are clipped to this before
    22  u16      image codecs offered: bit n is codec n
    24  u16      mask codecs offered
    26  u8 x 32  SHA-256 of the model file
    58  u8 x 16  name of the model, ASCII, padded with zeros
    74  u64      boot: a random number, drawn when the server starts
    82  u64      key of the run that it remembers, 0 for none
    90  u16      leading slices of that run whose results are known
    92  u8       flags: bit 0 mirroring, each mask also comes from the mirrored slice
    93  u8       kernels that compute: 0 unknown, 1 TFLite's reference kernels, 2 XNNPACK
    94  u32      largest payload of a Slice in bytes, 0: no limit; a raw one always fits
    """

    TYPE: ClassVar[int] = 1
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBBBHHB4BbffHH32s16sQQHBBI")

    modes: frozenset[Mode]
    window: tuple[int, int]
    scale: float
    zero_point: int
    clip: float
    image_codecs: int
    mask_codecs: int
    sha256: str
    model: str
    modalities: tuple[str, ...] = WIRE_MODALITIES
    slices_at_once: int = 1
    labels: int = OWN_LABELS
    boot: int = 0
    kept: int = 0
    answered: int = 0
    mirroring: bool = False
    kernels: str = KERNELS[0]
    largest_payload: int = 0

    def to_bytes(self) -> bytes:
        """Return the message as bytes; scale and clip are rounded to float32."""
        codes = [WIRE_MODALITIES.index(name) + 1 for name in self.modalities]
        return self.LAYOUT.pack(
            self.TYPE,
            VERSION,
            sum(self.modes),
            self.labels,
            *self.window,
            self.slices_at_once,
            *codes,
            *[0] * (4 - len(codes)),
            self.zero_point,
            self.scale,
            self.clip,
            self.image_codecs,
            self.mask_codecs,
            bytes.fromhex(self.sha256),
            self.model.encode("ascii"),
            self.boot,
            self.kept,
            self.answered,
            MIRRORING * self.mirroring,
            KERNELS.index(self.kernels),
            self.largest_payload,
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "BoardHello":
        """Return the message in `data`; raises MessageError, VersionError for another version."""
        check_version(data)
        fields = iter(unpack_fields(cls.LAYOUT, data, "BoardHello")[2:])
        modes, labels, x, y, at_once = (next(fields) for _ in range(5))
        codes = [next(fields) for _ in range(4)]
        zero_point, scale, clip, images, masks = (next(fields) for _ in range(5))
        _, _, boot, kept, answered, flags, kernels, largest = fields
        model = data[58:74].rstrip(b"\0")
        named = [code for code in codes if code]
        require(1 <= modes <= 3, f"a BoardHello that can do {modes}")
        require(labels == OWN_LABELS, f"a BoardHello with labels {labels}, not {OWN_LABELS}")
        require(1 <= x <= MAX_SIDE and 1 <= y <= MAX_SIDE, f"a window of {x} x {y}")
        require(codes[: len(named)] == named and bool(named), f"modalities {codes}")
        require(
            max(named) <= len(WIRE_MODALITIES) == len(set(WIRE_MODALITIES)), f"modalities {codes}"
        )
        require(len(set(named)) == len(named) and at_once >= 1, f"modalities {codes} x {at_once}")
        require(
            0 < scale < math.inf and 0 < clip < math.inf, f"an input scale {scale}, clip {clip}"
        )
        require(bool(images and masks), "a BoardHello without codecs")
        require(bool(model) and all(0x20 < byte < 0x7F for byte in model), "a model without a name")
        require(flags <= MIRRORING, f"the unknown flags {flags}")
        require(kernels < len(KERNELS), f"the unknown kernels {kernels}")
        return cls(
            modes=frozenset(mode for mode in Mode if modes & mode),
            window=(x, y),
            scale=scale,
            zero_point=zero_point,
            clip=clip,
            image_codecs=images,
            mask_codecs=masks,
            sha256=data[26:58].hex(),
            model=model.decode("ascii"),
            modalities=tuple(WIRE_MODALITIES[code - 1] for code in named),
            slices_at_once=at_once,
            labels=labels,
            boot=boot,
            kept=kept,
            answered=answered,
            mirroring=bool(flags & MIRRORING),
            kernels=KERNELS[kernels],
            largest_payload=largest,
        )


@dataclass(frozen=True)
class HostHello:
    """The host's choice. 5 bytes.

    0  u8  type 2
    1  u8  version 4
    2  u8  mode: 1 serve, 2 play
    3  u8  image codec
    4  u8  mask codec
    """

    TYPE: ClassVar[int] = 2
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBBBB")

    mode: Mode
    image_codec: int
    mask_codec: int

    def to_bytes(self) -> bytes:
        """Return the message as bytes."""
        return self.LAYOUT.pack(self.TYPE, VERSION, self.mode, self.image_codec, self.mask_codec)

    @classmethod
    def from_bytes(cls, data: bytes) -> "HostHello":
        """Return the message in `data`; raises MessageError, VersionError for another version."""
        check_version(data)
        _, _, mode, image, mask = unpack_fields(cls.LAYOUT, data, "HostHello")
        require(mode in (Mode.SERVE, Mode.PLAY), f"the unknown mode {mode}")
        require(image < 16 and mask < 16, f"the unknown codecs {image} and {mask}")
        return cls(Mode(mode), image, mask)
