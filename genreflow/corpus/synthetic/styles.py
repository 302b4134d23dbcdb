"""The ten styles: for every genre its tempi, harmony, players and sound, as data.

Within a style everything is drawn anew for every clip. Some clips are hard on purpose and let a
neighbouring style play some of the parts (NEIGHBOURS), as real records do.
"""

from dataclasses import dataclass

from genreflow.corpus.synthetic import players
from genreflow.corpus.synthetic.performance import (
    DORIAN,
    HARMONIC_MINOR,
    MAJOR,
    MIXOLYDIAN,
    NATURAL_MINOR,
    PHRYGIAN,
    Chord,
)
from genreflow.corpus.synthetic.players import Part

Range = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """What a genre's clips are drawn from."""

    tempo: Range
    """Beats a minute."""
    harmony: tuple[tuple[tuple[int, ...], tuple[Chord, ...]], ...]
    """(scale, one chord a bar)."""
    parts: dict[str, tuple[Part, ...]]
    """Who may play each role: `drums`, `bass`, `chords`, `lead`, `colour`."""
    levels: dict[str, Range]
    """Level of each role in dB."""
    absent: dict[str, float]
    """How often a role is missing altogether."""
    rms_dbfs: Range
    swing: Range = (0.5, 0.5)
    swing_unit: float = 0.5
    beats: tuple[int, ...] = (4,)
    rubato: Range = (0.0, 0.0)
    reverb: Range = (0.3, 1.2)
    wet: Range = (0.05, 0.4)
    tilt_db: Range = (-3.0, 3.0)
    """From 60 Hz to 8 kHz, positive is bright."""
    compression: Range = (0.0, 1.0)
    high_cut: Range = (7000.0, 10500.0)
    noise_dbfs: Range = (-78.0, -55.0)


_TWELVE_BARS: tuple[Chord, ...] = tuple((degree, "7") for degree in (0, 0, 0, 0, 5, 5, 0, 0, 7, 5, 0, 7))
_QUICK_CHANGE: tuple[Chord, ...] = tuple((degree, "7") for degree in (0, 5, 0, 0, 5, 5, 0, 0, 7, 5, 0, 7))

STYLES: dict[str, Style] = {
    "blues": Style(
        tempo=(60, 128),
        swing=(0.6, 0.69),
        harmony=((MIXOLYDIAN, _TWELVE_BARS), (MIXOLYDIAN, _QUICK_CHANGE)),
        parts={
            "drums": (players.blues_drums,),
            "bass": (players.blues_bass,),
            "chords": (players.blues_chords, players.blues_stabs),
            "lead": (players.blues_lead,),
        },
        levels={"drums": (-14, -7), "bass": (-7, -2), "chords": (-8, -3), "lead": (-4, 1)},
        absent={"drums": 0.2, "bass": 0.1, "chords": 0.12, "lead": 0.1},
        rms_dbfs=(-24, -15),
        tilt_db=(-5, 1),
        high_cut=(4500, 9500),
    ),
    "classical": Style(
        tempo=(56, 138),
        beats=(3, 4, 4),
        rubato=(0.0, 0.12),
        harmony=(
            (MAJOR, ((0, ""), (7, ""), (9, "m"), (5, ""), (2, "m"), (7, "7"))),
            (MAJOR, ((0, ""), (5, ""), (7, "7"), (0, ""))),
            (HARMONIC_MINOR, ((0, "m"), (5, "m"), (7, "7"), (0, "m"), (8, ""), (7, ""))),
        ),
        parts={
            "chords": (players.classical_arpeggios, players.classical_strings),
            "bass": (players.classical_bass,),
            "lead": (players.classical_lead,),
        },
        levels={"chords": (-5, 0), "bass": (-9, -3), "lead": (-4, 2)},
        absent={"bass": 0.35, "chords": 0.05, "lead": 0.2},
        rms_dbfs=(-32, -19),
        reverb=(1.0, 2.6),
        wet=(0.25, 0.8),
        tilt_db=(-6, 0),
        compression=(0.0, 0.0),
    ),
    "country": Style(
        tempo=(84, 152),
        beats=(4, 4, 4, 3),
        harmony=(
            (MAJOR, ((0, ""), (0, ""), (5, ""), (0, ""), (7, ""), (7, ""), (0, ""), (0, ""))),
            (MAJOR, ((0, ""), (5, ""), (0, ""), (7, "7"))),
            (MAJOR, ((0, ""), (9, "m"), (5, ""), (7, ""))),
        ),
        parts={
            "drums": (players.country_drums,),
            "bass": (players.country_bass,),
            "chords": (players.country_strum,),
            "lead": (players.country_steel, players.country_picking),
        },
        levels={"drums": (-15, -8), "bass": (-7, -2), "chords": (-6, -1), "lead": (-5, 0)},
        absent={"drums": 0.3, "bass": 0.08, "chords": 0.05, "lead": 0.12},
        rms_dbfs=(-24, -15),
        tilt_db=(-2, 4),
    ),
    "disco": Style(
        tempo=(108, 130),
        harmony=(
            (DORIAN, ((0, "m7"), (5, "9"), (0, "m7"), (5, "9"))),
            (NATURAL_MINOR, ((0, "m7"), (8, "maj7"), (10, ""), (7, "m7"))),
            (MAJOR, ((0, "maj7"), (9, "m7"), (2, "m7"), (7, "7"))),
        ),
        parts={
            "drums": (players.disco_drums,),
            "bass": (players.disco_bass,),
            "chords": (players.disco_scratch,),
            "lead": (players.disco_strings, players.disco_strings, players.disco_brass),
        },
        levels={"drums": (-5, 0), "bass": (-6, -1), "chords": (-12, -6), "lead": (-9, -3)},
        absent={"drums": 0.03, "bass": 0.1, "chords": 0.2, "lead": 0.12},
        rms_dbfs=(-20, -12),
        tilt_db=(-1, 5),
        compression=(0.3, 1.5),
    ),
    "hiphop": Style(
        tempo=(74, 104),
        swing=(0.5, 0.62),
        swing_unit=0.25,
        harmony=(
            (NATURAL_MINOR, ((0, "m7"), (0, "m7"), (8, "maj7"), (7, "m7"))),
            (DORIAN, ((0, "m9"), (0, "m9"))),
        ),
        parts={
            "drums": (players.hiphop_drums,),
            "bass": (players.hiphop_bass,),
            "chords": (players.hiphop_loop,),
            "lead": (players.hiphop_rap,),
            "colour": (players.hiphop_vinyl,),
        },
        levels={
            "drums": (-4, 1),
            "bass": (-6, 0),
            "chords": (-13, -6),
            "lead": (-7, -1),
            "colour": (-34, -22),
        },
        absent={"drums": 0.03, "bass": 0.12, "chords": 0.15, "lead": 0.25, "colour": 0.35},
        rms_dbfs=(-20, -12),
        tilt_db=(-6, 1),
        compression=(0.3, 1.8),
        reverb=(0.2, 0.6),
        wet=(0.0, 0.2),
    ),
    "jazz": Style(
        tempo=(96, 220),
        swing=(0.57, 0.68),
        harmony=(
            (MAJOR, ((2, "m7"), (7, "9"), (0, "maj7"), (9, "7"))),
            (MAJOR, ((0, "6"), (9, "7"), (2, "m7"), (7, "7"))),
            (DORIAN, ((0, "m7"), (0, "m7"), (2, "m7b5"), (7, "7"))),
        ),
        parts={
            "drums": (players.jazz_drums,),
            "bass": (players.jazz_bass,),
            "chords": (players.jazz_chords,),
            "lead": (players.jazz_lead,),
        },
        levels={"drums": (-14, -7), "bass": (-6, -1), "chords": (-9, -4), "lead": (-4, 1)},
        absent={"drums": 0.22, "bass": 0.05, "chords": 0.2, "lead": 0.1},
        rms_dbfs=(-27, -17),
        reverb=(0.5, 1.4),
        wet=(0.1, 0.5),
        tilt_db=(-5, 1),
        high_cut=(5000, 10500),
    ),
    "metal": Style(
        tempo=(110, 205),
        harmony=(
            (PHRYGIAN, ((0, "5"), (0, "5"), (1, "5"), (10, "5"))),
            (NATURAL_MINOR, ((0, "5"), (8, "5"), (10, "5"), (0, "5"))),
            (NATURAL_MINOR, ((0, "5"), (0, "5"), (3, "5"), (6, "5"))),
        ),
        parts={
            "drums": (players.metal_drums,),
            "bass": (players.metal_bass,),
            "chords": (players.metal_riff,),
            "lead": (players.metal_lead,),
        },
        levels={"drums": (-6, -1), "bass": (-8, -3), "chords": (-3, 1), "lead": (-7, -2)},
        absent={"drums": 0.06, "bass": 0.2, "chords": 0.02, "lead": 0.4},
        rms_dbfs=(-16, -9),
        compression=(1.0, 3.0),
        tilt_db=(-2, 4),
        reverb=(0.2, 0.7),
        wet=(0.0, 0.2),
    ),
    "pop": Style(
        tempo=(92, 130),
        harmony=(
            (MAJOR, ((0, ""), (7, ""), (9, "m"), (5, ""))),
            (MAJOR, ((9, "m"), (5, ""), (0, ""), (7, ""))),
            (MAJOR, ((0, "sus2"), (5, ""), (9, "m"), (7, ""))),
        ),
        parts={
            "drums": (players.pop_drums,),
            "bass": (players.pop_bass,),
            "chords": (players.pop_chords, players.pop_chords, players.pop_arpeggio),
            "lead": (players.pop_voice, players.pop_voice, players.pop_synth),
        },
        levels={"drums": (-5, 0), "bass": (-8, -3), "chords": (-7, -2), "lead": (-5, 0)},
        absent={"drums": 0.06, "bass": 0.12, "chords": 0.04, "lead": 0.12},
        rms_dbfs=(-18, -10),
        compression=(0.6, 2.2),
        tilt_db=(0, 6),
        high_cut=(8500, 10800),
    ),
    "reggae": Style(
        tempo=(64, 94),
        swing=(0.5, 0.6),
        swing_unit=0.25,
        harmony=(
            (NATURAL_MINOR, ((0, "m"), (0, "m"), (5, "m"), (0, "m"))),
            (MIXOLYDIAN, ((0, ""), (10, ""), (0, ""), (5, ""))),
            (MAJOR, ((0, ""), (2, "m"), (5, ""), (0, ""))),
        ),
        parts={
            "drums": (players.reggae_drums,),
            "bass": (players.reggae_bass,),
            "chords": (players.reggae_skank,),
            "lead": (players.reggae_lead,),
        },
        levels={"drums": (-10, -4), "bass": (-3, 2), "chords": (-8, -3), "lead": (-8, -2)},
        absent={"drums": 0.1, "bass": 0.06, "chords": 0.04, "lead": 0.25},
        rms_dbfs=(-22, -14),
        tilt_db=(-6, 1),
        reverb=(0.4, 1.5),
        wet=(0.05, 0.4),
    ),
    "rock": Style(
        tempo=(96, 160),
        harmony=(
            (MIXOLYDIAN, ((0, "5"), (10, "5"), (5, "5"), (0, "5"))),
            (MAJOR, ((0, ""), (5, ""), (9, "m"), (7, ""))),
            (NATURAL_MINOR, ((0, "m"), (10, ""), (8, ""), (10, ""))),
        ),
        parts={
            "drums": (players.rock_drums,),
            "bass": (players.rock_bass,),
            "chords": (players.rock_rhythm, players.rock_rhythm, players.rock_jangle),
            "lead": (players.rock_lead,),
        },
        levels={"drums": (-6, 0), "bass": (-8, -3), "chords": (-5, 0), "lead": (-6, -1)},
        absent={"drums": 0.05, "bass": 0.1, "chords": 0.04, "lead": 0.25},
        rms_dbfs=(-19, -11),
        compression=(0.5, 1.8),
        tilt_db=(-2, 3),
        reverb=(0.3, 1.0),
        wet=(0.02, 0.3),
    ),
}

NEIGHBOURS: dict[str, tuple[str, ...]] = {
    "blues": ("rock", "jazz", "country"),
    "classical": ("jazz",),
    "country": ("blues", "rock"),
    "disco": ("pop",),
    "hiphop": ("reggae", "pop"),
    "jazz": ("blues", "classical"),
    "metal": ("rock",),
    "pop": ("disco", "hiphop", "rock"),
    "reggae": ("hiphop", "pop"),
    "rock": ("metal", "country", "blues", "pop"),
}
"""From whom a hard case borrows parts."""
