"""``content-encoding: gzip``, undone as it comes in. Knows no connection."""

import zlib

from psubd.errors import BadBody, TooLarge, UnsupportedMediaType

GZIP = 31
"""zlib's ``wbits`` for the gzip format alone (zlib.h, inflateInit2: 16 + 15)."""


def packed_limit(limit: int) -> int:
    """Bytes that a gzip body may have which stands for ``limit`` bytes at most: what cannot be compressed becomes larger by less than an eighth,
    whatever the settings (zlib's deflateBound), and the header may hold a file's name."""
    return limit + (limit >> 3) + 1024


class Gunzip:
    """One body, of any number of gzip members (RFC 1952, section 2.2). Never holds more than ``limit`` bytes of it.

    :param limit: bytes that may come out.
    """

    def __init__(self, limit: int) -> None:
        self.room = limit
        self.member = zlib.decompressobj(GZIP)
        self.fresh = True

    def add(self, piece: bytes) -> bytes:
        """What comes out of ``piece``. :raises BadBody: for what is not gzip. :raises TooLarge: before the limit is passed."""
        out = []
        while piece:
            if self.member.eof:
                self.member = zlib.decompressobj(GZIP)
            self.fresh = False
            try:
                inflated = self.member.decompress(piece, self.room + 1)
            except zlib.error:
                raise BadBody("content-encoding: the body is not gzip, or is damaged, or something stands behind it") from None
            self.room -= len(inflated)
            if self.room < 0:
                raise TooLarge("the body is too large once gzip is undone")
            out.append(inflated)
            piece = self.member.unused_data if self.member.eof else self.member.unconsumed_tail
        return b"".join(out)

    def end(self) -> None:
        """:raises BadBody: for a body that ends within a member, or has none."""
        if self.fresh or not self.member.eof:
            raise BadBody("content-encoding: the gzip body is cut off")


def body_coding(values: list[bytes], taken: bool) -> bool:
    """Whether the body is gzip.

    :param values: of ``content-encoding``. :param taken: whether the route undoes gzip.
    :raises UnsupportedMediaType: for any other coding, and for gzip where the route does not take it.
    """
    codings = [coding.strip(b" \t").lower() for coding in b",".join(values).split(b",")]
    codings = [coding for coding in codings if coding not in (b"", b"identity")]
    if not codings:
        return False
    if taken and codings in ([b"gzip"], [b"x-gzip"]):
        return True
    takes = "gzip, once, or no coding" if taken else "no coding"
    raise UnsupportedMediaType(f"content-encoding: this route takes {takes}")
