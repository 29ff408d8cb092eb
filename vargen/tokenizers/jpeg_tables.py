"""What the headers of a baseline JPEG file say (ITU-T T.81): sizes, quantisation tables, Huffman codes."""

from __future__ import annotations

import dataclasses
import functools
import struct

import numpy as np

from vargen.errors import UserError

SUBSAMPLING = {
    "4:4:4": (1, 1),
    "4:2:2": (2, 1),
    "4:2:0": (2, 2),
}  # luma samples to one of chroma: across, down
LONGEST_SIDE = 65500  # pixels; libjpeg's bound

_DIAGONAL = sorted(np.ndindex(8, 8), key=lambda rc: (sum(rc), rc[0] if sum(rc) % 2 else rc[1]))
ZIGZAG = np.array([8 * row + column for row, column in _DIAGONAL])  # [64]: the place of the k-th coefficient

# Tables K.1 and K.2: luma and chroma, [2, 64] row by row.
_QUANTISERS = np.array(
    [
        "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
        "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 "
        "103 99".split(),
        "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99".split()
        + ["99"] * 32,
    ],
    np.int32,
)

# Tables K.3 to K.6: how many codes there are of 1 to 16 bits, and the symbols in the order of their codes. A symbol
# of DC is the size in bits of a difference; one of AC holds the run of zeros in its high half, the size in its low.
DC, AC = 0, 2  # and one more for chroma
HUFFMAN = tuple(
    (np.array(counts.split(), np.int32), np.frombuffer(bytes.fromhex(symbols), np.uint8).astype(np.int32))
    for counts, symbols in (
        ("0 1 5 1 1 1 1 1 1 0 0 0 0 0 0 0", "000102030405060708090a0b"),
        ("0 3 1 1 1 1 1 1 1 1 1 0 0 0 0 0", "000102030405060708090a0b"),
        (
            "0 2 1 3 3 2 4 3 5 5 4 4 0 0 1 125",
            "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a"
            "3435363738393a434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a929394"
            "95969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8"
            "e9eaf1f2f3f4f5f6f7f8f9fa",
        ),
        (
            "0 2 1 2 4 4 3 4 7 5 4 4 0 1 2 119",
            "000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125f11718191a262728"
            "292a35363738393a434445464748494a535455565758595a636465666768696a737475767778797a82838485868788898a92"
            "939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7"
            "e8e9eaf2f3f4f5f6f7f8f9fa",
        ),
    )
)


@functools.cache
def codes() -> tuple[np.ndarray, np.ndarray]:
    """The Huffman code of every symbol, and its length in bits (0 for none): int32 [4, 256]."""
    words, sizes = np.zeros((2, 4, 256), np.int32)
    for table, (counts, symbols) in enumerate(HUFFMAN):
        sizes[table, symbols] = np.repeat(np.arange(1, 17), counts)
        code = 0
        for symbol, before in zip(symbols, (0, *sizes[table, symbols])):
            size = sizes[table, symbol]
            code <<= size - (before or size)
            words[table, symbol] = code
            code += 1
    return words, sizes


@functools.cache
def limits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What decodes the codes from the 16 bits that come next.

    Returns:
      int32 [4, 16]: the first 16 bits that begin no code of 1, 2, ... 16 bits.
      int32 [4, 18]: by a code's length, what added to it gives its place among the symbols.
      int32 [4, 256]: the symbols, zeros after them.
    """
    ends, offsets, values = (np.zeros((4, n), np.int32) for n in (16, 18, 256))
    for table, (counts, symbols) in enumerate(HUFFMAN):
        values[table, : len(symbols)] = symbols
        code = place = 0
        for size, count in enumerate(counts, 1):
            code *= 2
            offsets[table, size] = place - code
            code, place = code + count, place + count
            ends[table, size - 1] = code << (16 - size)
    return ends, offsets, values


@dataclasses.dataclass(frozen=True)
class Frame:
    """All of a JPEG file but the bytes of its scan.

    Attributes:
      height, width: pixels, 1 to 65500.
      channels: 1 for grey, 3 for RGB, which is stored as YCbCr.
      quality: 1 to 100, libjpeg's scale of the tables of Annex K.
      subsampling: of chroma, "4:4:4", "4:2:2" (halved across) or "4:2:0" (across and down).
      restart: MCUs between two restart markers, up to 65535; 0 for none.
    """

    height: int
    width: int
    channels: int
    quality: int = 25
    subsampling: str = "4:2:0"
    restart: int = 0

    def __post_init__(self):
        for name, low, high in (
            ("height", 1, LONGEST_SIDE),
            ("width", 1, LONGEST_SIDE),
            ("quality", 1, 100),
            ("restart", 0, 65535),
        ):
            if not low <= getattr(self, name) <= high:
                raise UserError(
                    f"JPEG {name}: expected a whole number from {low} to {high}, found {getattr(self, name)}"
                )
        if self.channels not in (1, 3):
            raise UserError(f"JPEG channels: expected 1 or 3, found {self.channels}")
        if self.subsampling not in SUBSAMPLING:
            raise UserError(
                f"JPEG subsampling: expected one of {', '.join(SUBSAMPLING)}, found {self.subsampling!r}"
            )

    @property
    def sampling(self) -> tuple[int, int]:
        """Luma blocks of an MCU, across and down."""
        return (1, 1) if self.channels == 1 else SUBSAMPLING[self.subsampling]

    @property
    def mcus(self) -> tuple[int, int]:
        """MCUs (the units that are coded one after another), down and across."""
        across, down = self.sampling
        return -(-self.height // (8 * down)), -(-self.width // (8 * across))

    @property
    def components(self) -> np.ndarray:
        """int [b]: the component of each block of an MCU."""
        across, down = self.sampling
        return np.repeat(np.arange(self.channels), [across * down, 1, 1][: self.channels])

    @property
    def blocks(self) -> int:
        """Blocks of 64 coefficients in the whole scan."""
        return self.mcus[0] * self.mcus[1] * len(self.components)

    @property
    def interval(self) -> int:
        """Blocks between two restart markers."""
        return self.restart * len(self.components) or self.blocks

    @property
    def intervals(self) -> int:
        """Parts of the scan, between which restart markers stand."""
        return -(-self.blocks // self.interval)

    @property
    def quantisers(self) -> np.ndarray:
        """Steps of luma and chroma, row by row: int32 [2, 64]."""
        scale = 5000 // self.quality if self.quality < 50 else 200 - 2 * self.quality
        return np.clip((_QUANTISERS * scale + 50) // 100, 1, 255)

    def header(self, tables: bool = True) -> bytes:
        """The file up to the first byte of the scan, with the tables or abbreviated (annex B.4)."""
        kinds = min(self.channels, 2) if tables else 0
        across, down = self.sampling
        parts = [b"\xff\xd8", _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")]
        for table in range(kinds):
            parts.append(_segment(0xDB, bytes([table, *self.quantisers[table][ZIGZAG]])))
        parts.append(
            _segment(
                0xC0,
                struct.pack(">BHHB", 8, self.height, self.width, self.channels),
                *(bytes([c + 1, 0x11 if c else 16 * across + down, min(c, 1)]) for c in range(self.channels)),
            )
        )
        for table in range(kinds):
            for kind in (DC, AC):
                counts, symbols = HUFFMAN[kind + table]
                parts.append(_segment(0xC4, bytes([(16 if kind else 0) + table, *counts, *symbols])))
        if self.restart:
            parts.append(_segment(0xDD, struct.pack(">H", self.restart)))
        selectors = (bytes([c + 1, 0x11 * min(c, 1)]) for c in range(self.channels))
        parts.append(_segment(0xDA, bytes([self.channels]), *selectors, b"\0\x3f\0"))
        return b"".join(parts)


def _segment(marker: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
