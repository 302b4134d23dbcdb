"""What schemathesis sends as files: loaded into its process by SCHEMATHESIS_HOOKS."""

import io

import numpy as np
import schemathesis
import soundfile
from hypothesis import strategies as st

RATE = 8_000


def song(kind: str) -> bytes:
    """A second and a half of noise."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.random.default_rng(0).normal(size=RATE * 3 // 2) * 0.1, RATE, format=kind)
    return buffer.getvalue()


SONGS = [song(kind) for kind in ("WAV", "FLAC", "OGG", "MP3", "AU", "AIFF", "CAF")]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A song with some bytes changed, most of them in its header, and an end that may be missing."""
    content = bytearray(draw(st.sampled_from(SONGS)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.one_of(st.integers(0, 64), st.integers(0, len(content) - 1)))
        content[place] = draw(st.integers(0, 255))
    end = draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    return bytes(content[:end])


schemathesis.openapi.format(
    "binary", st.one_of(st.sampled_from(SONGS), damaged(), damaged(), st.binary(max_size=4096))
)
