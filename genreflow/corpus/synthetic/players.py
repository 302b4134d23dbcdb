"""The players: every part of every style, and the instruments they bring.

A part plays on a take's tracks, in the take's own time and harmony, so that a player can sit in with
another style.
"""

from collections.abc import Callable, Mapping

import numpy as np

from genreflow.corpus.synthetic import sound
from genreflow.corpus.synthetic.sound import Generator, Instrument
from genreflow.corpus.synthetic.take import BLUES, CHORDS, MAJOR_PENTATONIC, MINOR_PENTATONIC, Take

Part = Callable[[Take], str]
"""Plays on a take's tracks; returns what it played, in words."""


# Instruments, each drawn anew


def _acoustic_guitar(rng: Generator) -> Instrument:
    return sound.plucked(rng, tilt=rng.uniform(0.3, 0.7), ring=rng.uniform(0.5, 0.9), damping=0.05)


def _clean_guitar(rng: Generator) -> Instrument:
    return sound.plucked(rng, tilt=rng.uniform(0.7, 1.1), ring=rng.uniform(0.6, 1.1), vibrato=0.05)


def _lead_guitar(rng: Generator) -> Instrument:
    return sound.plucked(
        rng,
        tilt=rng.uniform(0.6, 1.0),
        ring=rng.uniform(1.2, 2.2),
        damping=0.04,
        vibrato=rng.uniform(0.15, 0.4),
        glide=rng.uniform(0.12, 0.25),
    )


def _upright_bass(rng: Generator) -> Instrument:
    return sound.plucked(
        rng, tilt=rng.uniform(1.4, 1.9), ring=rng.uniform(0.25, 0.45), damping=0.3, harmonics=20
    )


def _electric_bass(rng: Generator) -> Instrument:
    return sound.plucked(
        rng, tilt=rng.uniform(0.9, 1.4), ring=rng.uniform(0.5, 0.9), damping=0.1, harmonics=28
    )


def _synth_bass(rng: Generator) -> Instrument:
    return sound.sustained(
        rng, tilt=rng.uniform(0.9, 1.5), even=rng.uniform(0.2, 1.0), attack=0.004, release=0.04, harmonics=24
    )


def _piano(rng: Generator) -> Instrument:
    return sound.struck(rng, ratio=1.0, index=rng.uniform(1.2, 2.2), ring=rng.uniform(0.5, 1.0), hammer=0.15)


def _electric_piano(rng: Generator) -> Instrument:
    return sound.struck(rng, ratio=float(rng.choice([7.0, 14.0])), index=0.5, ring=rng.uniform(0.6, 1.2))


def _strings(rng: Generator, attack: float = 0.12) -> Instrument:
    spread = rng.uniform(5, 11)
    return sound.sustained(
        rng,
        tilt=rng.uniform(0.9, 1.3),
        attack=attack,
        release=attack,
        vibrato=(rng.uniform(4.8, 6.0), 0.12),
        voices=(-spread, 0.3 * spread, spread),
    )


def _violin(rng: Generator) -> Instrument:
    return sound.sustained(
        rng,
        tilt=rng.uniform(0.7, 1.1),
        attack=0.06,
        release=0.08,
        vibrato=(rng.uniform(5, 6.5), 0.25),
        breath=0.02,
    )


def _flute(rng: Generator) -> Instrument:
    return sound.sustained(
        rng,
        tilt=rng.uniform(2.0, 2.6),
        attack=0.05,
        release=0.06,
        vibrato=(5.0, 0.15),
        breath=rng.uniform(0.04, 0.1),
    )


def _saxophone(rng: Generator) -> Instrument:
    return sound.sustained(
        rng,
        tilt=rng.uniform(0.7, 1.1),
        even=rng.uniform(0.4, 0.8),
        attack=0.03,
        release=0.05,
        vibrato=(5.2, rng.uniform(0.1, 0.3)),
        breath=rng.uniform(0.05, 0.12),
    )


def _brass(rng: Generator) -> Instrument:
    return sound.sustained(rng, tilt=rng.uniform(0.5, 0.9), attack=0.025, release=0.05, vibrato=(5.4, 0.1))


def _harmonica(rng: Generator) -> Instrument:
    return sound.sustained(
        rng,
        tilt=rng.uniform(0.6, 0.9),
        even=rng.uniform(0.3, 0.6),
        attack=0.04,
        release=0.06,
        vibrato=(rng.uniform(5, 6.5), 0.2),
        breath=0.06,
        glide=0.15,
    )


def _pedal_steel(rng: Generator) -> Instrument:
    return sound.sustained(
        rng,
        tilt=rng.uniform(1.3, 1.8),
        attack=0.05,
        release=0.2,
        vibrato=(rng.uniform(4.5, 6), 0.18),
        glide=rng.uniform(0.2, 0.4),
    )


def _organ(rng: Generator) -> Instrument:
    return sound.sustained(
        rng,
        tilt=rng.uniform(0.8, 1.4),
        even=rng.uniform(0.6, 1.2),
        attack=0.006,
        release=0.02,
        vibrato=(rng.uniform(5.5, 6.8), 0.08),
        harmonics=9,
    )


def _bright_synth(rng: Generator) -> Instrument:
    spread = rng.uniform(8, 16)
    return sound.sustained(
        rng,
        tilt=rng.uniform(0.5, 0.9),
        attack=0.01,
        release=0.08,
        voices=(-spread, -0.4 * spread, 0.6 * spread, spread),
    )


def _square_synth(rng: Generator) -> Instrument:
    return sound.sustained(
        rng,
        tilt=rng.uniform(0.6, 1.0),
        even=rng.uniform(0.0, 0.3),
        attack=0.005,
        release=0.04,
        vibrato=(6.0, 0.08),
    )


def _one_of(
    rng: Generator, makers: Mapping[str, Callable[[Generator], Instrument]]
) -> tuple[str, Instrument]:
    name = str(rng.choice(list(makers)))
    return name, makers[name](rng)


# Blues


def blues_drums(take: Take) -> str:
    """Brushes: a swish a beat, the slap on two and four, a shuffled ride."""
    rng = take.rng
    swish = sound.brush(rng, seconds=take.lasting(0.9))
    slap = sound.snare(rng, pitch=190, seconds=0.14, wires=1.2, high=6000)
    ride = sound.cymbal(rng, seconds=0.35, low=5500, bell=0.05)
    low = sound.kick(rng, pitch=rng.uniform(50, 60), seconds=0.22, click=0.1)
    shuffle = rng.random() < 0.7
    for _, first in take.bars:
        for beat in range(take.beats):
            take.add("drums", first + beat, swish, take.touch(0.25, 0.4))
            take.add("drums", first + beat, ride, take.touch(0.3, 0.45))
            if shuffle:
                take.add("drums", first + beat + 0.5, ride, take.touch(0.2, 0.3))
            if beat % 2:
                take.add("drums", first + beat, slap, take.touch(0.6, 0.9))
            else:
                take.add("drums", first + beat, low, take.touch(0.7, 0.9))
    return "brushed shuffle" if shuffle else "brushes"


def blues_bass(take: Take) -> str:
    """Walks root, third, fifth, sixth in quarters or shuffled pairs."""
    name, bass = _one_of(take.rng, {"upright bass": _upright_bass, "electric bass": _electric_bass})
    shape = ((0, 4, 7, 9), (0, 0, 7, 9), (0, 7, 9, 10))[take.rng.integers(3)]
    pairs = take.rng.random() < 0.3
    for bar, first in take.bars:
        root = take.root(bar, 31)
        for beat in range(take.beats):
            take.add("bass", first + beat, bass(root + shape[beat % 4], take.lasting(0.6)), take.touch())
            if pairs:
                take.add(
                    "bass",
                    first + beat + 0.5,
                    bass(root + shape[beat % 4], take.lasting(0.35)),
                    take.touch(0.5, 0.7),
                )
    return f"walking {name}"


def blues_chords(take: Take) -> str:
    """The boogie: fifth and sixth over the root, shuffled."""
    name, chords = _one_of(take.rng, {"electric guitar": _clean_guitar, "piano": _piano})
    for bar, first in take.bars:
        root = take.root(bar, 40)
        for beat in range(take.beats):
            top = 9 if beat % 2 else 7
            for half, hard in ((0.0, 1.0), (0.5, 0.7)):
                for step in (0, top):
                    take.add(
                        "chords",
                        first + beat + half,
                        chords(root + step, take.lasting(0.4)),
                        hard * take.touch(),
                    )
    if name == "electric guitar":
        drive = take.rng.uniform(0.3, 1.2)
        take.change("chords", lambda line: sound.overdrive(line, drive, 90, 4500))
    return f"shuffled {name}"


def blues_stabs(take: Take) -> str:
    """Dominant sevenths on the off-beats."""
    name, chords = _one_of(take.rng, {"organ": _organ, "piano": _piano, "clean guitar": _clean_guitar})
    for bar, first in take.bars:
        for beat in (0.5, 2.5) if take.rng.random() < 0.6 else (1.0, 2.5, 3.0):
            for pitch in take.tones(bar, 55, "9" if take.rng.random() < 0.4 else "7"):
                take.add("chords", first + beat, chords(pitch, take.lasting(0.45)), take.touch(0.6, 0.9))
    return f"{name} stabs"


def blues_lead(take: Take) -> str:
    """Bent notes of the blues scale: call and rest."""
    name, lead = _one_of(take.rng, {"bent guitar": _lead_guitar, "harmonica": _harmonica})
    rhythms = (
        [(0.5, 0.5), (1, 0.5), (1.5, 1.4)],
        [(0, 1.5), (1.5, 0.5), (2, 1.5)],
        [(0, 0.5), (0.5, 0.5), (1, 1), (2.5, 1.2)],
    )
    rhythm = list(rhythms[take.rng.integers(len(rhythms))])
    for _, beat, beats, pitch in take.melody(rhythm, 60, 79, BLUES):
        slide = float(take.rng.choice([-2, -1, -1, 0, -3]))
        take.add("lead", beat, lead(pitch, take.lasting(beats), slide), take.touch())
    if name == "bent guitar":
        drive = take.rng.uniform(0.6, 2.0)
        take.change("lead", lambda line: sound.overdrive(line, drive, 150, 4500))
    return name


# Classical


def classical_arpeggios(take: Take) -> str:
    """Broken chords, Alberti's or rolling."""
    makers = {
        "piano": _piano,
        "harpsichord": lambda rng: sound.plucked(rng, tilt=0.1, ring=0.5, damping=0.02),
        "harp": _clean_guitar,
    }
    name, keys = _one_of(take.rng, makers)
    alberti = take.rng.random() < 0.5
    step = float(take.rng.choice([0.25, 0.5, 0.5]))
    for bar, first in take.bars:
        tones = take.tones(bar, 52)
        run = (
            [tones[0], tones[-1], tones[1], tones[-1]] if alberti else [*tones, tones[0] + 12, *tones[:0:-1]]
        )
        for note in range(int(take.beats / step)):
            swell = 0.7 + 0.3 * np.sin(2 * np.pi * (first + note * step) / 8)
            take.add(
                "chords",
                first + note * step,
                keys(run[note % len(run)], take.lasting(2 * step)),
                swell * take.touch(),
            )
    return f"{name} {'Alberti figures' if alberti else 'arpeggios'}"


def classical_strings(take: Take) -> str:
    """A section holding the chord, voice by voice, swelling."""
    strings = _strings(take.rng, take.rng.uniform(0.15, 0.3))
    for bar, first in take.bars:
        swell = 0.6 + 0.4 * np.sin(2 * np.pi * first / 16 + 1)
        for pitch in take.tones(bar, 53):
            take.add("chords", first, strings(pitch, take.lasting(take.beats * 1.02)), swell * take.touch())
    return "string section"


def classical_bass(take: Take) -> str:
    """A cello's long notes."""
    cello = _strings(take.rng, 0.15)
    for bar, first in take.bars:
        root = take.root(bar, 36)
        take.add("bass", first, cello(root, take.lasting(take.beats * 0.6)), take.touch())
        take.add(
            "bass",
            first + take.beats * 0.6,
            cello(root + 7, take.lasting(take.beats * 0.4)),
            take.touch(0.6, 0.8),
        )
    return "cello"


def classical_lead(take: Take) -> str:
    """A singing line with runs."""
    name, lead = _one_of(take.rng, {"violin": _violin, "flute": _flute, "piano": _piano})
    rhythms = (
        [(0, 1), (1, 0.5), (1.5, 0.5), (2, 1)],
        [(0, 1.5), (1.5, 0.5), (2, 0.5), (2.5, 0.5)],
        [(b / 4, 0.25) for b in range(8)] + [(2, 1)],
    )
    rhythm = list(rhythms[take.rng.integers(len(rhythms))]) + ([(3, 1)] if take.beats == 4 else [])
    for _, beat, beats, pitch in take.melody(rhythm, 67, 88, leap=2):
        take.add("lead", beat, lead(pitch, take.lasting(beats * 1.05)), take.touch(0.5, 1.0))
    return name


# Country


def country_drums(take: Take) -> str:
    """The train beat, or just a kick and a brushed snare."""
    rng = take.rng
    tap = sound.snare(rng, pitch=230, seconds=0.09, wires=1.5, high=7000)
    low = sound.kick(rng, pitch=rng.uniform(55, 68), seconds=0.2, click=0.2)
    train = rng.random() < 0.6
    for _, first in take.bars:
        for beat in range(take.beats):
            if beat % 2 == 0:
                take.add("drums", first + beat, low, take.touch())
            if train:
                for quarter in range(4):
                    hard = 0.8 if (beat % 2 and quarter == 0) or quarter == 2 else 0.3
                    take.add("drums", first + beat + quarter / 4, tap, hard * take.touch())
            elif beat % 2:
                take.add("drums", first + beat, tap, take.touch(0.8, 1.0))
    return "train beat" if train else "brushed two-beat"


def country_bass(take: Take) -> str:
    """Boom: root on one, fifth on three."""
    name, bass = _one_of(take.rng, {"upright bass": _upright_bass, "electric bass": _electric_bass})
    for bar, first in take.bars:
        root = take.root(bar, 33)
        take.add("bass", first, bass(root, take.lasting(1.2)), take.touch())
        if take.beats == 4:
            take.add("bass", first + 2, bass(root - 5, take.lasting(1.2)), take.touch())
            if take.rng.random() < 0.25:
                take.add("bass", first + 3, bass(root - 3, take.lasting(0.8)), take.touch(0.6, 0.9))
    return f"root-fifth {name}"


def country_strum(take: Take) -> str:
    """Chick: the acoustic guitar on the weak beats, sometimes with an upstroke."""
    guitar = _acoustic_guitar(take.rng)
    up = take.rng.random() < 0.6
    for bar, first in take.bars:
        strings = [*take.tones(bar, 52), *(pitch + 12 for pitch in take.tones(bar, 52)[:2])]
        for beat in range(take.beats):
            weak = beat % 2 == 1 if take.beats == 4 else beat > 0
            strokes = [(0.0, strings, 1.0 if weak else 0.35)] + (
                [(0.5, strings[::-1][:3], 0.45)] if up else []
            )
            for half, order, hard in strokes:
                for late, pitch in enumerate(order):
                    take.add(
                        "chords",
                        first + beat + half + 0.02 * late,
                        guitar(pitch, take.lasting(0.7)),
                        hard * take.touch(),
                    )
    return "boom-chick acoustic guitar"


def country_steel(take: Take) -> str:
    """Pedal steel: two voices gliding into the chord."""
    steel = _pedal_steel(take.rng)
    for bar, first in take.bars:
        tones = take.tones(bar, 64)
        pair = take.rng.choice(len(tones), 2, replace=False)
        for half in (0.0, take.beats / 2):
            slide = float(take.rng.choice([-2, 2, -1, -3, 0]))
            for place in pair:
                take.add(
                    "lead",
                    first + half,
                    steel(tones[place], take.lasting(take.beats / 2 * 1.05), slide),
                    take.touch(),
                )
            pair = (pair + 1) % len(tones)
    return "pedal steel"


def country_picking(take: Take) -> str:
    """Banjo rolls, or a fiddle or flat-picked guitar in eighths."""
    makers = {
        "banjo": lambda rng: sound.plucked(rng, tilt=0.2, ring=0.18, damping=0.03),
        "fiddle": _violin,
        "flat-picked guitar": _acoustic_guitar,
    }
    name, lead = _one_of(take.rng, makers)
    rhythm = [
        (eighth / 2, 0.5) for eighth in range(2 * take.beats) if eighth == 0 or take.rng.random() < 0.85
    ]
    for _, beat, beats, pitch in take.melody(rhythm, 62, 81, MAJOR_PENTATONIC):
        slide = -1.0 if name == "fiddle" and take.rng.random() < 0.3 else 0.0
        take.add("lead", beat, lead(pitch, take.lasting(beats), slide), take.touch())
    return name


# Disco


def disco_drums(take: Take) -> str:
    """Four on the floor, hi-hats opened on the off-beats."""
    rng = take.rng
    low = sound.kick(rng, pitch=rng.uniform(48, 58), seconds=rng.uniform(0.2, 0.28), click=0.4)
    back = sound.snare(rng, pitch=200, seconds=0.18, wires=1.5)
    hand = sound.clap(rng, seconds=0.16)
    closed = sound.cymbal(rng, seconds=0.06, low=6500)
    opened = sound.cymbal(rng, seconds=rng.uniform(0.18, 0.3), low=6000)
    claps, sixteenths = rng.random() < 0.5, rng.random() < 0.6
    for _, first in take.bars:
        for beat in range(take.beats):
            take.add("drums", first + beat, low, take.touch(0.9, 1.0))
            take.hits.append(take.when(first + beat))
            take.add("drums", first + beat + 0.5, opened, take.touch(0.5, 0.7))
            if sixteenths:
                for quarter in (0.0, 0.25, 0.75):
                    take.add("drums", first + beat + quarter, closed, take.touch(0.2, 0.4))
            if beat % 2:
                take.add("drums", first + beat, back, take.touch(0.6, 0.9))
                if claps:
                    take.add("drums", first + beat, hand, take.touch(0.4, 0.6))
    return "four on the floor"


def disco_bass(take: Take) -> str:
    """Octaves in eighths."""
    name, bass = _one_of(take.rng, {"electric bass": _electric_bass, "synth bass": _synth_bass})
    gallop = take.rng.random() < 0.4
    for bar, first in take.bars:
        root = take.root(bar, 33)
        for eighth in range(2 * take.beats):
            pitch = root + 12 * (eighth % 2)
            take.add("bass", first + eighth / 2, bass(pitch, take.lasting(0.4)), take.touch())
            if gallop and eighth % 4 == 3:
                take.add(
                    "bass", first + eighth / 2 + 0.25, bass(pitch, take.lasting(0.2)), take.touch(0.6, 0.8)
                )
    return f"octave {name}"


def disco_scratch(take: Take) -> str:
    """Muted sixteenths on a clean guitar."""
    guitar = _clean_guitar(take.rng)
    pattern = take.rng.random(16) < 0.6
    for bar, first in take.bars:
        tones = take.tones(bar, 60, "m7" if "m" in take.chord(bar)[1] else "9")[:4]
        for sixteenth in np.flatnonzero(pattern[: 4 * take.beats]):
            for pitch in tones:
                take.add(
                    "chords", first + sixteenth / 4, guitar(pitch, take.lasting(0.17)), take.touch(0.4, 0.9)
                )
    take.change("chords", lambda line: sound.band(line, 400, 7000))
    return "scratched guitar"


def disco_strings(take: Take) -> str:
    """A string machine: long chords, sometimes a run up into the bar."""
    strings = _strings(take.rng, 0.08)
    runs = take.rng.random() < 0.6
    for bar, first in take.bars:
        tones = take.tones(bar, 67)
        for pitch in tones:
            take.add("lead", first, strings(pitch, take.lasting(3.0 if runs else 4.0)), take.touch())
        if runs:
            ladder = [pitch for pitch in take.ladder(67, 91) if pitch >= tones[0]]
            for sixteenth in range(4):
                take.add(
                    "lead",
                    first + 3 + sixteenth / 4,
                    strings(ladder[sixteenth], take.lasting(0.3)),
                    take.touch(),
                )
    return "strings with runs" if runs else "strings"


def disco_brass(take: Take) -> str:
    """Brass hits, syncopated."""
    brass = _brass(take.rng)
    places = np.sort(take.rng.choice(np.arange(16), 4, replace=False)) / 4
    for bar, first in take.bars:
        for place in places:
            for pitch in take.tones(bar, 64):
                take.add("lead", first + place, brass(pitch, take.lasting(0.3), -1.0), take.touch())
    return "brass hits"


# Hip-hop


def hiphop_drums(take: Take) -> str:
    """A slow break: kicks off the beat, a heavy backbeat, lazy hats."""
    rng = take.rng
    low = sound.kick(rng, pitch=rng.uniform(42, 52), seconds=rng.uniform(0.3, 0.5), click=0.3)
    back = sound.snare(rng, pitch=rng.uniform(170, 220), seconds=0.22, wires=rng.uniform(1.0, 2.0), high=6500)
    if rng.random() < 0.4:
        back = sound.clap(rng, seconds=0.2)
    hat = sound.cymbal(rng, seconds=0.06, low=6000)
    kicks = [0.0, *np.sort(rng.choice([0.75, 1.75, 2.25, 2.5, 2.75, 3.5], rng.integers(1, 4), replace=False))]
    rolls = rng.random() < 0.3
    for _, first in take.bars:
        for beat in kicks:
            take.add("drums", first + beat, low, take.touch(0.9, 1.0))
            take.hits.append(take.when(first + beat))
        for beat in (1, 3):
            take.add("drums", first + beat, back, take.touch(0.8, 1.0))
        for sixteenth in range(0, 16, 2):
            take.add("drums", first + sixteenth / 4, hat, take.touch(0.25, 0.5))
            if rolls and sixteenth in (6, 14):
                for quick in range(1, 4):
                    take.add("drums", first + sixteenth / 4 + quick / 8, hat, take.touch(0.2, 0.4))
    return "breakbeat with hat rolls" if rolls else "breakbeat"


def hiphop_bass(take: Take) -> str:
    """A sub bass: few notes, long, sliding."""
    bass = sound.sustained(
        take.rng, tilt=take.rng.uniform(2.2, 3.2), attack=0.01, release=0.1, glide=0.15, harmonics=6
    )
    places = [0.0, *np.sort(take.rng.choice([1.5, 2.5, 2.75, 3.5], 2, replace=False))]
    for bar, first in take.bars:
        root = take.root(bar, 28)
        for place, until in zip(places, [*places[1:], 4.0], strict=True):
            slide = float(take.rng.choice([0, 0, 0, -5, 7]))
            take.add(
                "bass", first + place, bass(root, take.lasting(0.95 * (until - place)), slide), take.touch()
            )
    return "sub bass"


def hiphop_loop(take: Take) -> str:
    """One bar sampled off a record, over and over, its top cut away."""
    makers = {
        "electric piano": _electric_piano,
        "strings": _strings,
        "guitar": _clean_guitar,
        "piano": _piano,
    }
    name, keys = _one_of(take.rng, makers)
    places = np.sort(take.rng.choice(np.arange(8), 3, replace=False)) / 2
    phrase = [(place, take.rng.choice(len(CHORDS["m7"]), 2, replace=False)) for place in places]
    for _, first in take.bars:
        tones = take.tones(0, 57, "m9" if len(take.scale) == 7 else "m7")
        for place, pick in phrase:
            for note in pick:
                take.add("chords", first + place, keys(tones[note], take.lasting(1.0)), 0.8)
    top = take.rng.uniform(1200, 3500)
    take.change("chords", lambda line: sound.band(line, 150, top))
    return f"{name} loop"


def hiphop_rap(take: Take) -> str:
    """Syllables in sixteenths around one low pitch."""
    singer = sound.voice(take.rng, vibrato=0.0)
    middle = int(take.rng.integers(43, 58))
    for _, first in take.bars:
        for sixteenth in range(16):
            if take.rng.random() < 0.62:
                pitch = middle + int(take.rng.integers(-2, 4))
                take.add(
                    "lead",
                    first + sixteenth / 4,
                    singer(pitch, take.lasting(0.24), 1.0),
                    take.touch(0.5, 1.0),
                )
    return "rapped syllables"


def hiphop_vinyl(take: Take) -> str:
    """An old record's surface."""
    take.tracks["colour"] = sound.crackle(take.rng, take.samples, take.rng.uniform(8, 40))
    return "vinyl"


# Jazz


def jazz_drums(take: Take) -> str:
    """Ding, ding-a-ding on the ride, the foot on two and four, snare chatter."""
    rng = take.rng
    ride = sound.cymbal(rng, seconds=rng.uniform(0.5, 0.9), low=4500, bell=0.12)
    foot = sound.cymbal(rng, seconds=0.05, low=5000)
    chatter = sound.snare(rng, pitch=220, seconds=0.1, wires=1.0, high=6000)
    low = sound.kick(rng, pitch=62, seconds=0.18, click=0.05)
    for _, first in take.bars:
        for beat in range(take.beats):
            take.add("drums", first + beat, ride, take.touch(0.6, 0.8))
            if beat % 2:
                take.add("drums", first + beat + 0.5, ride, take.touch(0.45, 0.65))
                take.add("drums", first + beat, foot, take.touch(0.4, 0.6))
            if rng.random() < 0.2:
                take.add("drums", first + beat + 0.5, chatter, take.touch(0.2, 0.6))
            if rng.random() < 0.12:
                take.add("drums", first + beat + 0.5, low, take.touch(0.4, 0.7))
    return "swung ride"


def jazz_bass(take: Take) -> str:
    """Walks: root, chord tones, and a half step into the next bar."""
    bass = _upright_bass(take.rng)
    for bar, first in take.bars:
        root, target = take.root(bar, 31), take.root(bar + 1, 31)
        tones = [root + step for step in CHORDS[take.chord(bar)[1]]]
        line = [root, *take.rng.choice(tones[1:], take.beats - 2), target + take.rng.choice([-1, 1])]
        for beat, pitch in enumerate(line):
            take.add("bass", first + beat, bass(int(pitch), take.lasting(0.95)), take.touch())
    return "walking upright bass"


def jazz_chords(take: Take) -> str:
    """Rootless sevenths and ninths, off the beat."""
    name, keys = _one_of(
        take.rng, {"piano": _piano, "hollow guitar": _clean_guitar, "electric piano": _electric_piano}
    )
    for bar, first in take.bars:
        tones = [*take.tones(bar, 53)[1:], take.root(bar, 62) + 2]
        for beat, chance in ((0.0, 0.4), (1.5, 0.7), (2.5, 0.4), (3.5, 0.35)):
            if take.rng.random() < chance:
                span = float(take.rng.choice([0.3, 0.9, 1.4]))
                for pitch in tones:
                    take.add("chords", first + beat, keys(pitch, take.lasting(span)), take.touch(0.5, 0.9))
    return f"{name} comping"


def jazz_lead(take: Take) -> str:
    """Swung eighths with rests and chromatic steps."""
    name, lead = _one_of(
        take.rng, {"saxophone": _saxophone, "muted trumpet": _brass, "piano": _piano, "flute": _flute}
    )
    rhythm = [(eighth / 2, 0.5) for eighth in range(2 * take.beats) if take.rng.random() < 0.75] or [
        (0.0, 1.0)
    ]
    for _, beat, beats, pitch in take.melody(rhythm, 58, 82, leap=3):
        if take.rng.random() < 0.85:
            step = int(take.rng.choice([0, 0, 0, 1, -1]))
            take.add("lead", beat, lead(pitch + step, take.lasting(beats)), take.touch(0.5, 1.0))
    if name == "muted trumpet":
        take.change("lead", lambda line: sound.band(line, 700, 4500))
    return name


# Metal


def metal_drums(take: Take) -> str:
    """Double kick in sixteenths, a hard snare, crashes."""
    rng = take.rng
    low = sound.kick(rng, pitch=rng.uniform(52, 64), seconds=0.14, click=rng.uniform(0.8, 1.4))
    back = sound.snare(rng, pitch=rng.uniform(180, 230), seconds=0.2, wires=1.4)
    crash = sound.cymbal(rng, seconds=1.2, low=3500, bell=0.03)
    chime = sound.cymbal(rng, seconds=0.4, low=4500, bell=0.1)
    blast = rng.random() < 0.2
    gallop = (0, 2, 3) if rng.random() < 0.5 else (0, 1, 2, 3)
    for bar, first in take.bars:
        if bar % 2 == 0:
            take.add("drums", first, crash, take.touch(0.7, 0.9))
        for beat in range(take.beats):
            for quarter in gallop:
                take.add("drums", first + beat + quarter / 4, low, take.touch(0.8, 1.0))
            take.add("drums", first + beat, chime, take.touch(0.4, 0.6))
            for place in (0.0, 0.5) if blast else ((0.0,) if beat % 2 else ()):
                take.add("drums", first + beat + place, back, take.touch(0.9, 1.0))
    return "blast beat" if blast else "double kick"


def metal_bass(take: Take) -> str:
    """Sixteenths under the guitars, through an amplifier of its own."""
    bass = _electric_bass(take.rng)
    for bar, first in take.bars:
        root = take.root(bar, 28)
        for sixteenth in range(4 * take.beats):
            if sixteenth % 4 != 1:
                take.add("bass", first + sixteenth / 4, bass(root, take.lasting(0.22)), take.touch())
    drive = take.rng.uniform(1.0, 2.5)
    take.change("bass", lambda line: sound.overdrive(line, drive, 40, 2500))
    return "driven bass"


def metal_riff(take: Take) -> str:
    """Palm-muted gallops and open power chords, heavily distorted."""
    guitar = sound.plucked(take.rng, tilt=0.5, ring=1.5, damping=0.03)
    muted = sound.plucked(take.rng, tilt=0.9, ring=0.12, damping=0.1)
    pattern = [take.rng.random() < 0.3 for _ in range(4 * take.beats)]
    tremolo = take.rng.random() < 0.25
    for bar, first in take.bars:
        root = take.root(bar, 38)
        for sixteenth in range(4 * take.beats):
            if pattern[sixteenth] and sixteenth % 2 == 0 and not tremolo:
                for step in (0, 7, 12):
                    take.add(
                        "chords", first + sixteenth / 4, guitar(root + step, take.lasting(0.7)), take.touch()
                    )
            elif sixteenth % 4 != 1 or tremolo:
                for step in (0, 7):
                    take.add(
                        "chords",
                        first + sixteenth / 4,
                        (guitar if tremolo else muted)(root + step, take.lasting(0.24)),
                        take.touch(),
                    )
    drive, top = take.rng.uniform(5, 14), take.rng.uniform(4000, 6500)
    take.change("chords", lambda line: sound.overdrive(line, drive, 80, top))
    return "tremolo-picked guitars" if tremolo else "palm-muted guitars"


def metal_lead(take: Take) -> str:
    """Fast scales on a distorted guitar, or a growl."""
    if take.rng.random() < 0.35:
        singer = sound.voice(take.rng, vibrato=0.0)
        for _, beat, beats, pitch in take.melody([(0, 0.7), (1, 0.7), (1.5, 0.4), (2, 1.6)], 40, 48):
            take.add("lead", beat, singer(pitch, take.lasting(beats), 2.0), take.touch())
        take.change("lead", lambda line: sound.overdrive(line, 6.0, 150, 5000))
        return "growl"
    lead = _lead_guitar(take.rng)
    rhythm = [
        (sixteenth / 4, 0.25)
        for sixteenth in range(4 * take.beats)
        if sixteenth < 8 or take.rng.random() < 0.6
    ]
    for _, beat, beats, pitch in take.melody(rhythm, 64, 88, leap=2):
        take.add("lead", beat, lead(pitch, take.lasting(beats)), take.touch())
    take.change("lead", lambda line: sound.overdrive(line, 5.0, 200, 6000))
    return "distorted lead guitar"


# Pop


def pop_drums(take: Take) -> str:
    """A programmed beat with claps."""
    rng = take.rng
    low = sound.kick(rng, pitch=rng.uniform(46, 56), seconds=0.25, click=0.5)
    hand = sound.clap(rng, seconds=rng.uniform(0.14, 0.22))
    hat = sound.cymbal(rng, seconds=0.05, low=7500)
    kicks = ((0, 1, 2, 3), (0, 2, 2.5), (0, 1.5, 2.5), (0, 0.75, 2))[rng.integers(4)]
    for _, first in take.bars:
        for beat in kicks:
            take.add("drums", first + beat, low, take.touch(0.9, 1.0))
            take.hits.append(take.when(first + beat))
        for beat in (1, 3):
            take.add("drums", first + beat, hand, take.touch(0.8, 1.0))
        for eighth in range(2 * take.beats):
            take.add("drums", first + eighth / 2, hat, take.touch(0.25, 0.45))
    return "programmed beat with claps"


def pop_bass(take: Take) -> str:
    """A synthesiser's eighths or held roots."""
    bass = _synth_bass(take.rng)
    eighths = take.rng.random() < 0.6
    for bar, first in take.bars:
        root = take.root(bar, 33)
        for place in np.arange(0, take.beats, 0.5) if eighths else (0.0, 1.5, 3.0):
            take.add(
                "bass", first + float(place), bass(root, take.lasting(0.45 if eighths else 1.2)), take.touch()
            )
    take.duck("bass", 0.6, take.lasting(0.5))
    return "synth bass"


def pop_chords(take: Take) -> str:
    """Bright detuned chords that pump with the kick."""
    name, keys = _one_of(
        take.rng,
        {"bright synth": _bright_synth, "electric piano": _electric_piano, "square synth": _square_synth},
    )
    stabs = take.rng.random() < 0.4
    for bar, first in take.bars:
        for pitch in [*take.tones(bar, 60), take.root(bar, 48)]:
            for place in (0.0, 1.5, 3.0) if stabs else (0.0,):
                take.add(
                    "chords", first + place, keys(pitch, take.lasting(0.9 if stabs else 4.0)), take.touch()
                )
    take.duck("chords", take.rng.uniform(0.5, 0.9), take.lasting(0.8))
    return f"{name} {'stabs' if stabs else 'pad'}, side-chained"


def pop_arpeggio(take: Take) -> str:
    """A sequenced arpeggio in sixteenths."""
    synth = _square_synth(take.rng)
    order = take.rng.permutation(4)
    for bar, first in take.bars:
        tones = take.tones(bar, 60)
        tones = [*tones, tones[0] + 12]
        for sixteenth in range(4 * take.beats):
            take.add(
                "chords",
                first + sixteenth / 4,
                synth(tones[order[sixteenth % 4] % len(tones)], take.lasting(0.2)),
                take.touch(),
            )
    take.duck("chords", take.rng.uniform(0.4, 0.8), take.lasting(0.6))
    return "sequenced arpeggio"


def pop_voice(take: Take) -> str:
    """A sung hook."""
    singer = sound.voice(take.rng, vibrato=0.15)
    rhythms = (
        [(0, 0.5), (0.5, 0.5), (1, 1), (2.5, 1.4)],
        [(0, 1), (1.5, 0.5), (2, 1), (3, 1)],
        [(0.5, 0.5), (1, 0.5), (1.5, 1), (3, 1)],
    )
    for _, beat, beats, pitch in take.melody(list(rhythms[take.rng.integers(3)]), 60, 76, MAJOR_PENTATONIC):
        take.add(
            "lead", beat, singer(pitch, take.lasting(beats), float(take.rng.choice([0, -1]))), take.touch()
        )
    return "sung hook"


def pop_synth(take: Take) -> str:
    """A hook on a bright lead."""
    lead = _bright_synth(take.rng)
    for _, beat, beats, pitch in take.melody(
        [(0, 0.75), (0.75, 0.75), (1.5, 0.5), (2, 1), (3, 0.5), (3.5, 0.5)], 67, 84, MAJOR_PENTATONIC
    ):
        take.add("lead", beat, lead(pitch, take.lasting(beats)), take.touch())
    return "synth hook"


# Reggae


def reggae_drums(take: Take) -> str:
    """One drop: kick and rim together on three; or steppers, a kick on every beat."""
    rng = take.rng
    low = sound.kick(rng, pitch=rng.uniform(46, 56), seconds=0.25, click=0.2)
    stick = sound.rim(rng)
    hat = sound.cymbal(rng, seconds=0.07, low=6500)
    fill = sound.snare(rng, pitch=300, seconds=0.12, wires=0.8)
    steppers = rng.random() < 0.25
    for bar, first in take.bars:
        for beat in range(4):
            if steppers or beat == 2:
                take.add("drums", first + beat, low, take.touch(0.9, 1.0))
            for half in (0.0, 0.5):
                take.add("drums", first + beat + half, hat, take.touch(0.25, 0.5))
        take.add("drums", first + 2, stick, take.touch(0.7, 0.9))
        if bar % 4 == 3:
            for sixteenth in range(3):
                take.add("drums", first + 3.25 + sixteenth / 4, fill, take.touch(0.5, 0.8))
    return "steppers" if steppers else "one drop"


def reggae_bass(take: Take) -> str:
    """Deep and melodic, with holes in it."""
    bass = sound.plucked(take.rng, tilt=take.rng.uniform(2.0, 2.6), ring=0.9, damping=0.2, harmonics=10)
    places = [0.0, *np.sort(take.rng.choice([0.5, 1.0, 1.5, 2.5, 3.0, 3.5], 3, replace=False))]
    steps = [0, *take.rng.choice([0, 3, 5, 7, 7, -5], 3)]
    for bar, first in take.bars:
        root = take.root(bar, 28)
        for place, step in zip(places, steps, strict=True):
            take.add("bass", first + place, bass(root + int(step), take.lasting(0.6)), take.touch())
    return "deep bass line"


def reggae_skank(take: Take) -> str:
    """The chop: short chords on the off-beats only."""
    name, chop = _one_of(take.rng, {"guitar": _clean_guitar, "piano": _piano, "organ": _organ})
    double = take.rng.random() < 0.3
    for bar, first in take.bars:
        for beat in range(4):
            for pitch in take.tones(bar, 60):
                take.add("chords", first + beat + 0.5, chop(pitch, take.lasting(0.16)), take.touch(0.8, 1.0))
                if double:
                    take.add(
                        "chords", first + beat + 0.75, chop(pitch, take.lasting(0.12)), take.touch(0.4, 0.6)
                    )
    take.change("chords", lambda line: sound.band(line, 350, 5500))
    if take.rng.random() < 0.4:
        take.echo("chords", 0.75, take.rng.uniform(0.25, 0.5))
    return f"{name} skank"


def reggae_lead(take: Take) -> str:
    """Melodica, organ or singer, with a dub echo."""
    makers = {
        "melodica": _harmonica,
        "organ": _organ,
        "singer": lambda rng: sound.voice(rng, vibrato=0.2),
        "horns": _brass,
    }
    name, lead = _one_of(take.rng, makers)
    rhythms = (
        [(0.5, 0.5), (1, 1), (2.5, 1)],
        [(0, 1.5), (2, 0.5), (2.5, 0.5)],
        [(1, 0.5), (1.5, 0.5), (2, 1.5)],
    )
    for _, beat, beats, pitch in take.melody(list(rhythms[take.rng.integers(3)]), 60, 76):
        if take.rng.random() < 0.8:
            take.add("lead", beat, lead(pitch, take.lasting(beats)), take.touch())
    take.echo("lead", 0.75, take.rng.uniform(0.2, 0.5))
    return f"{name} with echo"


# Rock


def rock_drums(take: Take) -> str:
    """The backbeat, eighths on the hat."""
    rng = take.rng
    low = sound.kick(rng, pitch=rng.uniform(52, 62), seconds=0.22, click=0.5)
    back = sound.snare(rng, pitch=rng.uniform(180, 220), seconds=0.25, wires=1.4)
    hat = sound.cymbal(rng, seconds=rng.uniform(0.06, 0.2), low=5500)
    crash = sound.cymbal(rng, seconds=1.3, low=3500, bell=0.02)
    kicks = ((0, 2), (0, 2, 2.5), (0, 1.5, 2), (0, 0.5, 2.5))[rng.integers(4)]
    for bar, first in take.bars:
        if bar % 4 == 0:
            take.add("drums", first, crash, take.touch(0.6, 0.8))
        for beat in kicks:
            take.add("drums", first + beat, low, take.touch(0.9, 1.0))
            take.hits.append(take.when(first + beat))
        for beat in (1, 3):
            take.add("drums", first + beat, back, take.touch(0.9, 1.0))
        for eighth in range(8):
            take.add("drums", first + eighth / 2, hat, take.touch(0.35, 0.6))
        if bar % 4 == 3:
            for sixteenth in range(4):
                take.add("drums", first + 3 + sixteenth / 4, back, take.touch(0.6, 0.9))
    return "backbeat"


def rock_bass(take: Take) -> str:
    """Picked eighths on the root."""
    bass = _electric_bass(take.rng)
    for bar, first in take.bars:
        root = take.root(bar, 28)
        for eighth in range(8):
            passing = 7 if eighth == 7 and take.rng.random() < 0.4 else 0
            take.add("bass", first + eighth / 2, bass(root + passing, take.lasting(0.48)), take.touch())
    return "eighths on electric bass"


def rock_rhythm(take: Take) -> str:
    """Overdriven fifths: eighths or ringing chords."""
    guitar = sound.plucked(take.rng, tilt=0.6, ring=1.2, damping=0.05)
    ringing = take.rng.random() < 0.4
    for bar, first in take.bars:
        root = take.root(bar, 40)
        for place in (0.0, 1.5, 2.5, 3.0) if ringing else np.arange(0, 4, 0.5):
            strong = 1.0 if place % 1 == 0 else 0.75
            for step in (0, 7, 12):
                take.add(
                    "chords",
                    first + float(place),
                    guitar(root + step, take.lasting(1.4 if ringing else 0.5)),
                    strong * take.touch(),
                )
    drive, top = take.rng.uniform(1.2, 4.0), take.rng.uniform(3500, 5500)
    take.change("chords", lambda line: sound.overdrive(line, drive, 90, top))
    return "ringing overdriven guitar" if ringing else "overdriven eighths"


def rock_jangle(take: Take) -> str:
    """Picked open chords on a nearly clean guitar."""
    guitar = _clean_guitar(take.rng)
    for bar, first in take.bars:
        tones = take.tones(bar, 52)
        run = [tones[0], *[pitch + 12 for pitch in tones]]
        for eighth in range(8):
            take.add(
                "chords",
                first + eighth / 2,
                guitar(run[(eighth * 3) % len(run)], take.lasting(1.2)),
                take.touch(),
            )
    drive = take.rng.uniform(0.8, 1.6)
    take.change("chords", lambda line: sound.overdrive(line, drive, 120, 6000))
    return "jangling guitar"


def rock_lead(take: Take) -> str:
    """A pentatonic guitar line, or a singer."""
    if take.rng.random() < 0.4:
        singer = sound.voice(take.rng, vibrato=0.1)
        for _, beat, beats, pitch in take.melody(
            [(0, 0.5), (0.5, 0.5), (1, 1), (2, 0.5), (2.5, 1.2)], 55, 69, MINOR_PENTATONIC
        ):
            take.add("lead", beat, singer(pitch, take.lasting(beats), -1.0), take.touch())
        take.change("lead", lambda line: sound.overdrive(line, 1.0, 200, 6000))
        return "shouted voice"
    lead = _lead_guitar(take.rng)
    rhythm = [(eighth / 2, 0.5) for eighth in range(8) if take.rng.random() < 0.6] or [(0.0, 2.0)]
    for _, beat, beats, pitch in take.melody(rhythm, 60, 81, MINOR_PENTATONIC):
        take.add(
            "lead",
            beat,
            lead(pitch, take.lasting(1.3 * beats), float(take.rng.choice([0, 0, -2]))),
            take.touch(),
        )
    drive = take.rng.uniform(2.0, 4.0)
    take.change("lead", lambda line: sound.overdrive(line, drive, 200, 5500))
    return "overdriven lead guitar"
