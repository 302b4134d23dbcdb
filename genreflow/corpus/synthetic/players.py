"""The parts of every style: drums, bass, chords and lead.

A part plays on a performance's tracks, in its time and harmony: any style's part fits any performance.
"""

from collections.abc import Callable

import numpy as np

from genreflow.corpus.synthetic import instruments, sound
from genreflow.corpus.synthetic.performance import (
    BLUES,
    CHORDS,
    MAJOR_PENTATONIC,
    MINOR_PENTATONIC,
    Performance,
)

Part = Callable[[Performance], str]
"""Plays on a performance's tracks; returns what it played, in words."""


# Blues


def blues_drums(performance: Performance) -> str:
    """Brushes: a swish a beat, the slap on two and four, a shuffled ride."""
    rng = performance.rng
    swish = sound.brush(rng, seconds=performance.lasting(0.9))
    slap = sound.snare(rng, pitch=190, seconds=0.14, wires=1.2, high=6000)
    ride = sound.cymbal(rng, seconds=0.35, low=5500, bell=0.05)
    low = sound.kick(rng, pitch=rng.uniform(50, 60), seconds=0.22, click=0.1)
    shuffle = rng.random() < 0.7
    for _, first in performance.bars:
        for beat in range(performance.beats):
            performance.add("drums", first + beat, swish, performance.touch(0.25, 0.4))
            performance.add("drums", first + beat, ride, performance.touch(0.3, 0.45))
            if shuffle:
                performance.add("drums", first + beat + 0.5, ride, performance.touch(0.2, 0.3))
            if beat % 2:
                performance.add("drums", first + beat, slap, performance.touch(0.6, 0.9))
            else:
                performance.add("drums", first + beat, low, performance.touch(0.7, 0.9))
    return "brushed shuffle" if shuffle else "brushes"


def blues_bass(performance: Performance) -> str:
    """Walks root, third, fifth, sixth in quarters or shuffled pairs."""
    name, bass = instruments.one_of(
        performance.rng,
        {"upright bass": instruments.upright_bass, "electric bass": instruments.electric_bass},
    )
    shape = ((0, 4, 7, 9), (0, 0, 7, 9), (0, 7, 9, 10))[performance.rng.integers(3)]
    pairs = performance.rng.random() < 0.3
    for bar, first in performance.bars:
        root = performance.root(bar, 31)
        for beat in range(performance.beats):
            performance.add(
                "bass",
                first + beat,
                bass(root + shape[beat % 4], performance.lasting(0.6)),
                performance.touch(),
            )
            if pairs:
                performance.add(
                    "bass",
                    first + beat + 0.5,
                    bass(root + shape[beat % 4], performance.lasting(0.35)),
                    performance.touch(0.5, 0.7),
                )
    return f"walking {name}"


def blues_chords(performance: Performance) -> str:
    """The boogie: fifth and sixth over the root, shuffled."""
    name, chords = instruments.one_of(
        performance.rng, {"electric guitar": instruments.clean_guitar, "piano": instruments.piano}
    )
    for bar, first in performance.bars:
        root = performance.root(bar, 40)
        for beat in range(performance.beats):
            top = 9 if beat % 2 else 7
            for half, hard in ((0.0, 1.0), (0.5, 0.7)):
                for step in (0, top):
                    performance.add(
                        "chords",
                        first + beat + half,
                        chords(root + step, performance.lasting(0.4)),
                        hard * performance.touch(),
                    )
    if name == "electric guitar":
        drive = performance.rng.uniform(0.3, 1.2)
        performance.change("chords", lambda line: sound.overdrive(line, drive, 90, 4500))
    return f"shuffled {name}"


def blues_stabs(performance: Performance) -> str:
    """Dominant sevenths on the off-beats."""
    name, chords = instruments.one_of(
        performance.rng,
        {"organ": instruments.organ, "piano": instruments.piano, "clean guitar": instruments.clean_guitar},
    )
    for bar, first in performance.bars:
        for beat in (0.5, 2.5) if performance.rng.random() < 0.6 else (1.0, 2.5, 3.0):
            for pitch in performance.tones(bar, 55, "9" if performance.rng.random() < 0.4 else "7"):
                performance.add(
                    "chords",
                    first + beat,
                    chords(pitch, performance.lasting(0.45)),
                    performance.touch(0.6, 0.9),
                )
    return f"{name} stabs"


def blues_lead(performance: Performance) -> str:
    """Bent notes of the blues scale: call and rest."""
    name, lead = instruments.one_of(
        performance.rng, {"bent guitar": instruments.lead_guitar, "harmonica": instruments.harmonica}
    )
    rhythms = (
        [(0.5, 0.5), (1, 0.5), (1.5, 1.4)],
        [(0, 1.5), (1.5, 0.5), (2, 1.5)],
        [(0, 0.5), (0.5, 0.5), (1, 1), (2.5, 1.2)],
    )
    rhythm = list(rhythms[performance.rng.integers(len(rhythms))])
    for _, beat, beats, pitch in performance.melody(rhythm, 60, 79, BLUES):
        slide = float(performance.rng.choice([-2, -1, -1, 0, -3]))
        performance.add("lead", beat, lead(pitch, performance.lasting(beats), slide), performance.touch())
    if name == "bent guitar":
        drive = performance.rng.uniform(0.6, 2.0)
        performance.change("lead", lambda line: sound.overdrive(line, drive, 150, 4500))
    return name


# Classical


def classical_arpeggios(performance: Performance) -> str:
    """Broken chords, Alberti's or rolling."""
    makers = {
        "piano": instruments.piano,
        "harpsichord": lambda rng: sound.plucked(rng, tilt=0.1, ring=0.5, damping=0.02),
        "harp": instruments.clean_guitar,
    }
    name, keys = instruments.one_of(performance.rng, makers)
    alberti = performance.rng.random() < 0.5
    step = float(performance.rng.choice([0.25, 0.5, 0.5]))
    for bar, first in performance.bars:
        tones = performance.tones(bar, 52)
        run = (
            [tones[0], tones[-1], tones[1], tones[-1]] if alberti else [*tones, tones[0] + 12, *tones[:0:-1]]
        )
        for note in range(int(performance.beats / step)):
            swell = 0.7 + 0.3 * np.sin(2 * np.pi * (first + note * step) / 8)
            performance.add(
                "chords",
                first + note * step,
                keys(run[note % len(run)], performance.lasting(2 * step)),
                swell * performance.touch(),
            )
    return f"{name} {'Alberti figures' if alberti else 'arpeggios'}"


def classical_strings(performance: Performance) -> str:
    """A section holding the chord, voice by voice, swelling."""
    strings = instruments.strings(performance.rng, performance.rng.uniform(0.15, 0.3))
    for bar, first in performance.bars:
        swell = 0.6 + 0.4 * np.sin(2 * np.pi * first / 16 + 1)
        for pitch in performance.tones(bar, 53):
            performance.add(
                "chords",
                first,
                strings(pitch, performance.lasting(performance.beats * 1.02)),
                swell * performance.touch(),
            )
    return "string section"


def classical_bass(performance: Performance) -> str:
    """A cello's long notes."""
    cello = instruments.strings(performance.rng, 0.15)
    for bar, first in performance.bars:
        root = performance.root(bar, 36)
        performance.add(
            "bass", first, cello(root, performance.lasting(performance.beats * 0.6)), performance.touch()
        )
        performance.add(
            "bass",
            first + performance.beats * 0.6,
            cello(root + 7, performance.lasting(performance.beats * 0.4)),
            performance.touch(0.6, 0.8),
        )
    return "cello"


def classical_lead(performance: Performance) -> str:
    """A singing line with runs."""
    name, lead = instruments.one_of(
        performance.rng,
        {"violin": instruments.violin, "flute": instruments.flute, "piano": instruments.piano},
    )
    rhythms = (
        [(0, 1), (1, 0.5), (1.5, 0.5), (2, 1)],
        [(0, 1.5), (1.5, 0.5), (2, 0.5), (2.5, 0.5)],
        [(b / 4, 0.25) for b in range(8)] + [(2, 1)],
    )
    rhythm = list(rhythms[performance.rng.integers(len(rhythms))]) + (
        [(3, 1)] if performance.beats == 4 else []
    )
    for _, beat, beats, pitch in performance.melody(rhythm, 67, 88, leap=2):
        performance.add(
            "lead", beat, lead(pitch, performance.lasting(beats * 1.05)), performance.touch(0.5, 1.0)
        )
    return name


# Country


def country_drums(performance: Performance) -> str:
    """The train beat, or just a kick and a brushed snare."""
    rng = performance.rng
    tap = sound.snare(rng, pitch=230, seconds=0.09, wires=1.5, high=7000)
    low = sound.kick(rng, pitch=rng.uniform(55, 68), seconds=0.2, click=0.2)
    train = rng.random() < 0.6
    for _, first in performance.bars:
        for beat in range(performance.beats):
            if beat % 2 == 0:
                performance.add("drums", first + beat, low, performance.touch())
            if train:
                for quarter in range(4):
                    hard = 0.8 if (beat % 2 and quarter == 0) or quarter == 2 else 0.3
                    performance.add("drums", first + beat + quarter / 4, tap, hard * performance.touch())
            elif beat % 2:
                performance.add("drums", first + beat, tap, performance.touch(0.8, 1.0))
    return "train beat" if train else "brushed two-beat"


def country_bass(performance: Performance) -> str:
    """Boom: root on one, fifth on three."""
    name, bass = instruments.one_of(
        performance.rng,
        {"upright bass": instruments.upright_bass, "electric bass": instruments.electric_bass},
    )
    for bar, first in performance.bars:
        root = performance.root(bar, 33)
        performance.add("bass", first, bass(root, performance.lasting(1.2)), performance.touch())
        if performance.beats == 4:
            performance.add("bass", first + 2, bass(root - 5, performance.lasting(1.2)), performance.touch())
            if performance.rng.random() < 0.25:
                performance.add(
                    "bass", first + 3, bass(root - 3, performance.lasting(0.8)), performance.touch(0.6, 0.9)
                )
    return f"root-fifth {name}"


def country_strum(performance: Performance) -> str:
    """Chick: the acoustic guitar on the weak beats, sometimes with an upstroke."""
    guitar = instruments.acoustic_guitar(performance.rng)
    up = performance.rng.random() < 0.6
    for bar, first in performance.bars:
        strings = [*performance.tones(bar, 52), *(pitch + 12 for pitch in performance.tones(bar, 52)[:2])]
        for beat in range(performance.beats):
            weak = beat % 2 == 1 if performance.beats == 4 else beat > 0
            strokes = [(0.0, strings, 1.0 if weak else 0.35)] + (
                [(0.5, strings[::-1][:3], 0.45)] if up else []
            )
            for half, order, hard in strokes:
                for late, pitch in enumerate(order):
                    performance.add(
                        "chords",
                        first + beat + half + 0.02 * late,
                        guitar(pitch, performance.lasting(0.7)),
                        hard * performance.touch(),
                    )
    return "boom-chick acoustic guitar"


def country_steel(performance: Performance) -> str:
    """Pedal steel: two voices gliding into the chord."""
    steel = instruments.pedal_steel(performance.rng)
    for bar, first in performance.bars:
        tones = performance.tones(bar, 64)
        pair = performance.rng.choice(len(tones), 2, replace=False)
        for half in (0.0, performance.beats / 2):
            slide = float(performance.rng.choice([-2, 2, -1, -3, 0]))
            for place in pair:
                performance.add(
                    "lead",
                    first + half,
                    steel(tones[place], performance.lasting(performance.beats / 2 * 1.05), slide),
                    performance.touch(),
                )
            pair = (pair + 1) % len(tones)
    return "pedal steel"


def country_picking(performance: Performance) -> str:
    """Banjo rolls, or a fiddle or flat-picked guitar in eighths."""
    makers = {
        "banjo": lambda rng: sound.plucked(rng, tilt=0.2, ring=0.18, damping=0.03),
        "fiddle": instruments.violin,
        "flat-picked guitar": instruments.acoustic_guitar,
    }
    name, lead = instruments.one_of(performance.rng, makers)
    rhythm = [
        (eighth / 2, 0.5)
        for eighth in range(2 * performance.beats)
        if eighth == 0 or performance.rng.random() < 0.85
    ]
    for _, beat, beats, pitch in performance.melody(rhythm, 62, 81, MAJOR_PENTATONIC):
        slide = -1.0 if name == "fiddle" and performance.rng.random() < 0.3 else 0.0
        performance.add("lead", beat, lead(pitch, performance.lasting(beats), slide), performance.touch())
    return name


# Disco


def disco_drums(performance: Performance) -> str:
    """Four on the floor, hi-hats opened on the off-beats."""
    rng = performance.rng
    low = sound.kick(rng, pitch=rng.uniform(48, 58), seconds=rng.uniform(0.2, 0.28), click=0.4)
    back = sound.snare(rng, pitch=200, seconds=0.18, wires=1.5)
    hand = sound.clap(rng, seconds=0.16)
    closed = sound.cymbal(rng, seconds=0.06, low=6500)
    opened = sound.cymbal(rng, seconds=rng.uniform(0.18, 0.3), low=6000)
    claps, sixteenths = rng.random() < 0.5, rng.random() < 0.6
    for _, first in performance.bars:
        for beat in range(performance.beats):
            performance.add("drums", first + beat, low, performance.touch(0.9, 1.0))
            performance.hits.append(performance.when(first + beat))
            performance.add("drums", first + beat + 0.5, opened, performance.touch(0.5, 0.7))
            if sixteenths:
                for quarter in (0.0, 0.25, 0.75):
                    performance.add("drums", first + beat + quarter, closed, performance.touch(0.2, 0.4))
            if beat % 2:
                performance.add("drums", first + beat, back, performance.touch(0.6, 0.9))
                if claps:
                    performance.add("drums", first + beat, hand, performance.touch(0.4, 0.6))
    return "four on the floor"


def disco_bass(performance: Performance) -> str:
    """Octaves in eighths."""
    name, bass = instruments.one_of(
        performance.rng, {"electric bass": instruments.electric_bass, "synth bass": instruments.synth_bass}
    )
    gallop = performance.rng.random() < 0.4
    for bar, first in performance.bars:
        root = performance.root(bar, 33)
        for eighth in range(2 * performance.beats):
            pitch = root + 12 * (eighth % 2)
            performance.add(
                "bass", first + eighth / 2, bass(pitch, performance.lasting(0.4)), performance.touch()
            )
            if gallop and eighth % 4 == 3:
                performance.add(
                    "bass",
                    first + eighth / 2 + 0.25,
                    bass(pitch, performance.lasting(0.2)),
                    performance.touch(0.6, 0.8),
                )
    return f"octave {name}"


def disco_scratch(performance: Performance) -> str:
    """Muted sixteenths on a clean guitar."""
    guitar = instruments.clean_guitar(performance.rng)
    pattern = performance.rng.random(16) < 0.6
    for bar, first in performance.bars:
        tones = performance.tones(bar, 60, "m7" if "m" in performance.chord(bar)[1] else "9")[:4]
        for sixteenth in np.flatnonzero(pattern[: 4 * performance.beats]):
            for pitch in tones:
                performance.add(
                    "chords",
                    first + sixteenth / 4,
                    guitar(pitch, performance.lasting(0.17)),
                    performance.touch(0.4, 0.9),
                )
    performance.change("chords", lambda line: sound.band(line, 400, 7000))
    return "scratched guitar"


def disco_strings(performance: Performance) -> str:
    """A string machine: long chords, sometimes a run up into the bar."""
    strings = instruments.strings(performance.rng, 0.08)
    runs = performance.rng.random() < 0.6
    for bar, first in performance.bars:
        tones = performance.tones(bar, 67)
        for pitch in tones:
            performance.add(
                "lead", first, strings(pitch, performance.lasting(3.0 if runs else 4.0)), performance.touch()
            )
        if runs:
            ladder = [pitch for pitch in performance.ladder(67, 91) if pitch >= tones[0]]
            for sixteenth in range(4):
                performance.add(
                    "lead",
                    first + 3 + sixteenth / 4,
                    strings(ladder[sixteenth], performance.lasting(0.3)),
                    performance.touch(),
                )
    return "strings with runs" if runs else "strings"


def disco_brass(performance: Performance) -> str:
    """Brass hits, syncopated."""
    brass = instruments.brass(performance.rng)
    places = np.sort(performance.rng.choice(np.arange(16), 4, replace=False)) / 4
    for bar, first in performance.bars:
        for place in places:
            for pitch in performance.tones(bar, 64):
                performance.add(
                    "lead", first + place, brass(pitch, performance.lasting(0.3), -1.0), performance.touch()
                )
    return "brass hits"


# Hip-hop


def hiphop_drums(performance: Performance) -> str:
    """A slow break: kicks off the beat, a heavy backbeat, lazy hats."""
    rng = performance.rng
    low = sound.kick(rng, pitch=rng.uniform(42, 52), seconds=rng.uniform(0.3, 0.5), click=0.3)
    back = sound.snare(rng, pitch=rng.uniform(170, 220), seconds=0.22, wires=rng.uniform(1.0, 2.0), high=6500)
    if rng.random() < 0.4:
        back = sound.clap(rng, seconds=0.2)
    hat = sound.cymbal(rng, seconds=0.06, low=6000)
    kicks = [0.0, *np.sort(rng.choice([0.75, 1.75, 2.25, 2.5, 2.75, 3.5], rng.integers(1, 4), replace=False))]
    rolls = rng.random() < 0.3
    for _, first in performance.bars:
        for beat in kicks:
            performance.add("drums", first + beat, low, performance.touch(0.9, 1.0))
            performance.hits.append(performance.when(first + beat))
        for beat in (1, 3):
            performance.add("drums", first + beat, back, performance.touch(0.8, 1.0))
        for sixteenth in range(0, 16, 2):
            performance.add("drums", first + sixteenth / 4, hat, performance.touch(0.25, 0.5))
            if rolls and sixteenth in (6, 14):
                for quick in range(1, 4):
                    performance.add(
                        "drums", first + sixteenth / 4 + quick / 8, hat, performance.touch(0.2, 0.4)
                    )
    return "breakbeat with hat rolls" if rolls else "breakbeat"


def hiphop_bass(performance: Performance) -> str:
    """A sub bass: few notes, long, sliding."""
    bass = sound.sustained(
        performance.rng,
        tilt=performance.rng.uniform(2.2, 3.2),
        attack=0.01,
        release=0.1,
        glide=0.15,
        harmonics=6,
    )
    places = [0.0, *np.sort(performance.rng.choice([1.5, 2.5, 2.75, 3.5], 2, replace=False))]
    for bar, first in performance.bars:
        root = performance.root(bar, 28)
        for place, until in zip(places, [*places[1:], 4.0], strict=True):
            slide = float(performance.rng.choice([0, 0, 0, -5, 7]))
            performance.add(
                "bass",
                first + place,
                bass(root, performance.lasting(0.95 * (until - place)), slide),
                performance.touch(),
            )
    return "sub bass"


def hiphop_loop(performance: Performance) -> str:
    """One bar sampled off a record, over and over, its top cut away."""
    makers = {
        "electric piano": instruments.electric_piano,
        "strings": instruments.strings,
        "guitar": instruments.clean_guitar,
        "piano": instruments.piano,
    }
    name, keys = instruments.one_of(performance.rng, makers)
    places = np.sort(performance.rng.choice(np.arange(8), 3, replace=False)) / 2
    phrase = [(place, performance.rng.choice(len(CHORDS["m7"]), 2, replace=False)) for place in places]
    for _, first in performance.bars:
        tones = performance.tones(0, 57, "m9" if len(performance.scale) == 7 else "m7")
        for place, pick in phrase:
            for note in pick:
                performance.add("chords", first + place, keys(tones[note], performance.lasting(1.0)), 0.8)
    top = performance.rng.uniform(1200, 3500)
    performance.change("chords", lambda line: sound.band(line, 150, top))
    return f"{name} loop"


def hiphop_rap(performance: Performance) -> str:
    """Syllables in sixteenths around one low pitch."""
    singer = sound.voice(performance.rng, vibrato=0.0)
    middle = int(performance.rng.integers(43, 58))
    for _, first in performance.bars:
        for sixteenth in range(16):
            if performance.rng.random() < 0.62:
                pitch = middle + int(performance.rng.integers(-2, 4))
                performance.add(
                    "lead",
                    first + sixteenth / 4,
                    singer(pitch, performance.lasting(0.24), 1.0),
                    performance.touch(0.5, 1.0),
                )
    return "rapped syllables"


def hiphop_vinyl(performance: Performance) -> str:
    """An old record's surface."""
    performance.tracks["colour"] = sound.crackle(
        performance.rng, performance.samples, performance.rng.uniform(8, 40)
    )
    return "vinyl"


# Jazz


def jazz_drums(performance: Performance) -> str:
    """Ding, ding-a-ding on the ride, the foot on two and four, snare chatter."""
    rng = performance.rng
    ride = sound.cymbal(rng, seconds=rng.uniform(0.5, 0.9), low=4500, bell=0.12)
    foot = sound.cymbal(rng, seconds=0.05, low=5000)
    chatter = sound.snare(rng, pitch=220, seconds=0.1, wires=1.0, high=6000)
    low = sound.kick(rng, pitch=62, seconds=0.18, click=0.05)
    for _, first in performance.bars:
        for beat in range(performance.beats):
            performance.add("drums", first + beat, ride, performance.touch(0.6, 0.8))
            if beat % 2:
                performance.add("drums", first + beat + 0.5, ride, performance.touch(0.45, 0.65))
                performance.add("drums", first + beat, foot, performance.touch(0.4, 0.6))
            if rng.random() < 0.2:
                performance.add("drums", first + beat + 0.5, chatter, performance.touch(0.2, 0.6))
            if rng.random() < 0.12:
                performance.add("drums", first + beat + 0.5, low, performance.touch(0.4, 0.7))
    return "swung ride"


def jazz_bass(performance: Performance) -> str:
    """Walks: root, chord tones, and a half step into the next bar."""
    bass = instruments.upright_bass(performance.rng)
    for bar, first in performance.bars:
        root, target = performance.root(bar, 31), performance.root(bar + 1, 31)
        tones = [root + step for step in CHORDS[performance.chord(bar)[1]]]
        line = [
            root,
            *performance.rng.choice(tones[1:], performance.beats - 2),
            target + performance.rng.choice([-1, 1]),
        ]
        for beat, pitch in enumerate(line):
            performance.add(
                "bass", first + beat, bass(int(pitch), performance.lasting(0.95)), performance.touch()
            )
    return "walking upright bass"


def jazz_chords(performance: Performance) -> str:
    """Rootless sevenths and ninths, off the beat."""
    name, keys = instruments.one_of(
        performance.rng,
        {
            "piano": instruments.piano,
            "hollow guitar": instruments.clean_guitar,
            "electric piano": instruments.electric_piano,
        },
    )
    for bar, first in performance.bars:
        tones = [*performance.tones(bar, 53)[1:], performance.root(bar, 62) + 2]
        for beat, chance in ((0.0, 0.4), (1.5, 0.7), (2.5, 0.4), (3.5, 0.35)):
            if performance.rng.random() < chance:
                span = float(performance.rng.choice([0.3, 0.9, 1.4]))
                for pitch in tones:
                    performance.add(
                        "chords",
                        first + beat,
                        keys(pitch, performance.lasting(span)),
                        performance.touch(0.5, 0.9),
                    )
    return f"{name} comping"


def jazz_lead(performance: Performance) -> str:
    """Swung eighths with rests and chromatic steps."""
    name, lead = instruments.one_of(
        performance.rng,
        {
            "saxophone": instruments.saxophone,
            "muted trumpet": instruments.brass,
            "piano": instruments.piano,
            "flute": instruments.flute,
        },
    )
    rhythm = [
        (eighth / 2, 0.5) for eighth in range(2 * performance.beats) if performance.rng.random() < 0.75
    ] or [(0.0, 1.0)]
    for _, beat, beats, pitch in performance.melody(rhythm, 58, 82, leap=3):
        if performance.rng.random() < 0.85:
            step = int(performance.rng.choice([0, 0, 0, 1, -1]))
            performance.add(
                "lead", beat, lead(pitch + step, performance.lasting(beats)), performance.touch(0.5, 1.0)
            )
    if name == "muted trumpet":
        performance.change("lead", lambda line: sound.band(line, 700, 4500))
    return name


# Metal


def metal_drums(performance: Performance) -> str:
    """Double kick in sixteenths, a hard snare, crashes."""
    rng = performance.rng
    low = sound.kick(rng, pitch=rng.uniform(52, 64), seconds=0.14, click=rng.uniform(0.8, 1.4))
    back = sound.snare(rng, pitch=rng.uniform(180, 230), seconds=0.2, wires=1.4)
    crash = sound.cymbal(rng, seconds=1.2, low=3500, bell=0.03)
    chime = sound.cymbal(rng, seconds=0.4, low=4500, bell=0.1)
    blast = rng.random() < 0.2
    gallop = (0, 2, 3) if rng.random() < 0.5 else (0, 1, 2, 3)
    for bar, first in performance.bars:
        if bar % 2 == 0:
            performance.add("drums", first, crash, performance.touch(0.7, 0.9))
        for beat in range(performance.beats):
            for quarter in gallop:
                performance.add("drums", first + beat + quarter / 4, low, performance.touch(0.8, 1.0))
            performance.add("drums", first + beat, chime, performance.touch(0.4, 0.6))
            for place in (0.0, 0.5) if blast else ((0.0,) if beat % 2 else ()):
                performance.add("drums", first + beat + place, back, performance.touch(0.9, 1.0))
    return "blast beat" if blast else "double kick"


def metal_bass(performance: Performance) -> str:
    """Sixteenths under the guitars, through an amplifier of its own."""
    bass = instruments.electric_bass(performance.rng)
    for bar, first in performance.bars:
        root = performance.root(bar, 28)
        for sixteenth in range(4 * performance.beats):
            if sixteenth % 4 != 1:
                performance.add(
                    "bass", first + sixteenth / 4, bass(root, performance.lasting(0.22)), performance.touch()
                )
    drive = performance.rng.uniform(1.0, 2.5)
    performance.change("bass", lambda line: sound.overdrive(line, drive, 40, 2500))
    return "driven bass"


def metal_riff(performance: Performance) -> str:
    """Palm-muted gallops and open power chords, heavily distorted."""
    guitar = sound.plucked(performance.rng, tilt=0.5, ring=1.5, damping=0.03)
    muted = sound.plucked(performance.rng, tilt=0.9, ring=0.12, damping=0.1)
    pattern = [performance.rng.random() < 0.3 for _ in range(4 * performance.beats)]
    tremolo = performance.rng.random() < 0.25
    for bar, first in performance.bars:
        root = performance.root(bar, 38)
        for sixteenth in range(4 * performance.beats):
            if pattern[sixteenth] and sixteenth % 2 == 0 and not tremolo:
                for step in (0, 7, 12):
                    performance.add(
                        "chords",
                        first + sixteenth / 4,
                        guitar(root + step, performance.lasting(0.7)),
                        performance.touch(),
                    )
            elif sixteenth % 4 != 1 or tremolo:
                for step in (0, 7):
                    performance.add(
                        "chords",
                        first + sixteenth / 4,
                        (guitar if tremolo else muted)(root + step, performance.lasting(0.24)),
                        performance.touch(),
                    )
    drive, top = performance.rng.uniform(5, 14), performance.rng.uniform(4000, 6500)
    performance.change("chords", lambda line: sound.overdrive(line, drive, 80, top))
    return "tremolo-picked guitars" if tremolo else "palm-muted guitars"


def metal_lead(performance: Performance) -> str:
    """Fast scales on a distorted guitar, or a growl."""
    if performance.rng.random() < 0.35:
        singer = sound.voice(performance.rng, vibrato=0.0)
        for _, beat, beats, pitch in performance.melody([(0, 0.7), (1, 0.7), (1.5, 0.4), (2, 1.6)], 40, 48):
            performance.add("lead", beat, singer(pitch, performance.lasting(beats), 2.0), performance.touch())
        performance.change("lead", lambda line: sound.overdrive(line, 6.0, 150, 5000))
        return "growl"
    lead = instruments.lead_guitar(performance.rng)
    rhythm = [
        (sixteenth / 4, 0.25)
        for sixteenth in range(4 * performance.beats)
        if sixteenth < 8 or performance.rng.random() < 0.6
    ]
    for _, beat, beats, pitch in performance.melody(rhythm, 64, 88, leap=2):
        performance.add("lead", beat, lead(pitch, performance.lasting(beats)), performance.touch())
    performance.change("lead", lambda line: sound.overdrive(line, 5.0, 200, 6000))
    return "distorted lead guitar"


# Pop


def pop_drums(performance: Performance) -> str:
    """A programmed beat with claps."""
    rng = performance.rng
    low = sound.kick(rng, pitch=rng.uniform(46, 56), seconds=0.25, click=0.5)
    hand = sound.clap(rng, seconds=rng.uniform(0.14, 0.22))
    hat = sound.cymbal(rng, seconds=0.05, low=7500)
    kicks = ((0, 1, 2, 3), (0, 2, 2.5), (0, 1.5, 2.5), (0, 0.75, 2))[rng.integers(4)]
    for _, first in performance.bars:
        for beat in kicks:
            performance.add("drums", first + beat, low, performance.touch(0.9, 1.0))
            performance.hits.append(performance.when(first + beat))
        for beat in (1, 3):
            performance.add("drums", first + beat, hand, performance.touch(0.8, 1.0))
        for eighth in range(2 * performance.beats):
            performance.add("drums", first + eighth / 2, hat, performance.touch(0.25, 0.45))
    return "programmed beat with claps"


def pop_bass(performance: Performance) -> str:
    """A synthesiser's eighths or held roots."""
    bass = instruments.synth_bass(performance.rng)
    eighths = performance.rng.random() < 0.6
    for bar, first in performance.bars:
        root = performance.root(bar, 33)
        for place in np.arange(0, performance.beats, 0.5) if eighths else (0.0, 1.5, 3.0):
            performance.add(
                "bass",
                first + float(place),
                bass(root, performance.lasting(0.45 if eighths else 1.2)),
                performance.touch(),
            )
    performance.duck("bass", 0.6, performance.lasting(0.5))
    return "synth bass"


def pop_chords(performance: Performance) -> str:
    """Bright detuned chords that pump with the kick."""
    name, keys = instruments.one_of(
        performance.rng,
        {
            "bright synth": instruments.bright_synth,
            "electric piano": instruments.electric_piano,
            "square synth": instruments.square_synth,
        },
    )
    stabs = performance.rng.random() < 0.4
    for bar, first in performance.bars:
        for pitch in [*performance.tones(bar, 60), performance.root(bar, 48)]:
            for place in (0.0, 1.5, 3.0) if stabs else (0.0,):
                performance.add(
                    "chords",
                    first + place,
                    keys(pitch, performance.lasting(0.9 if stabs else 4.0)),
                    performance.touch(),
                )
    performance.duck("chords", performance.rng.uniform(0.5, 0.9), performance.lasting(0.8))
    return f"{name} {'stabs' if stabs else 'pad'}, side-chained"


def pop_arpeggio(performance: Performance) -> str:
    """A sequenced arpeggio in sixteenths."""
    synth = instruments.square_synth(performance.rng)
    order = performance.rng.permutation(4)
    for bar, first in performance.bars:
        tones = performance.tones(bar, 60)
        tones = [*tones, tones[0] + 12]
        for sixteenth in range(4 * performance.beats):
            performance.add(
                "chords",
                first + sixteenth / 4,
                synth(tones[order[sixteenth % 4] % len(tones)], performance.lasting(0.2)),
                performance.touch(),
            )
    performance.duck("chords", performance.rng.uniform(0.4, 0.8), performance.lasting(0.6))
    return "sequenced arpeggio"


def pop_voice(performance: Performance) -> str:
    """A sung hook."""
    singer = sound.voice(performance.rng, vibrato=0.15)
    rhythms = (
        [(0, 0.5), (0.5, 0.5), (1, 1), (2.5, 1.4)],
        [(0, 1), (1.5, 0.5), (2, 1), (3, 1)],
        [(0.5, 0.5), (1, 0.5), (1.5, 1), (3, 1)],
    )
    for _, beat, beats, pitch in performance.melody(
        list(rhythms[performance.rng.integers(3)]), 60, 76, MAJOR_PENTATONIC
    ):
        performance.add(
            "lead",
            beat,
            singer(pitch, performance.lasting(beats), float(performance.rng.choice([0, -1]))),
            performance.touch(),
        )
    return "sung hook"


def pop_synth(performance: Performance) -> str:
    """A hook on a bright lead."""
    lead = instruments.bright_synth(performance.rng)
    for _, beat, beats, pitch in performance.melody(
        [(0, 0.75), (0.75, 0.75), (1.5, 0.5), (2, 1), (3, 0.5), (3.5, 0.5)], 67, 84, MAJOR_PENTATONIC
    ):
        performance.add("lead", beat, lead(pitch, performance.lasting(beats)), performance.touch())
    return "synth hook"


# Reggae


def reggae_drums(performance: Performance) -> str:
    """One drop: kick and rim together on three; or steppers, a kick on every beat."""
    rng = performance.rng
    low = sound.kick(rng, pitch=rng.uniform(46, 56), seconds=0.25, click=0.2)
    stick = sound.rim(rng)
    hat = sound.cymbal(rng, seconds=0.07, low=6500)
    fill = sound.snare(rng, pitch=300, seconds=0.12, wires=0.8)
    steppers = rng.random() < 0.25
    for bar, first in performance.bars:
        for beat in range(4):
            if steppers or beat == 2:
                performance.add("drums", first + beat, low, performance.touch(0.9, 1.0))
            for half in (0.0, 0.5):
                performance.add("drums", first + beat + half, hat, performance.touch(0.25, 0.5))
        performance.add("drums", first + 2, stick, performance.touch(0.7, 0.9))
        if bar % 4 == 3:
            for sixteenth in range(3):
                performance.add("drums", first + 3.25 + sixteenth / 4, fill, performance.touch(0.5, 0.8))
    return "steppers" if steppers else "one drop"


def reggae_bass(performance: Performance) -> str:
    """Deep and melodic, with holes in it."""
    bass = sound.plucked(
        performance.rng, tilt=performance.rng.uniform(2.0, 2.6), ring=0.9, damping=0.2, harmonics=10
    )
    places = [0.0, *np.sort(performance.rng.choice([0.5, 1.0, 1.5, 2.5, 3.0, 3.5], 3, replace=False))]
    steps = [0, *performance.rng.choice([0, 3, 5, 7, 7, -5], 3)]
    for bar, first in performance.bars:
        root = performance.root(bar, 28)
        for place, step in zip(places, steps, strict=True):
            performance.add(
                "bass", first + place, bass(root + int(step), performance.lasting(0.6)), performance.touch()
            )
    return "deep bass line"


def reggae_skank(performance: Performance) -> str:
    """The chop: short chords on the off-beats only."""
    name, chop = instruments.one_of(
        performance.rng,
        {"guitar": instruments.clean_guitar, "piano": instruments.piano, "organ": instruments.organ},
    )
    double = performance.rng.random() < 0.3
    for bar, first in performance.bars:
        for beat in range(4):
            for pitch in performance.tones(bar, 60):
                performance.add(
                    "chords",
                    first + beat + 0.5,
                    chop(pitch, performance.lasting(0.16)),
                    performance.touch(0.8, 1.0),
                )
                if double:
                    performance.add(
                        "chords",
                        first + beat + 0.75,
                        chop(pitch, performance.lasting(0.12)),
                        performance.touch(0.4, 0.6),
                    )
    performance.change("chords", lambda line: sound.band(line, 350, 5500))
    if performance.rng.random() < 0.4:
        performance.echo("chords", 0.75, performance.rng.uniform(0.25, 0.5))
    return f"{name} skank"


def reggae_lead(performance: Performance) -> str:
    """Melodica, organ or singer, with a dub echo."""
    makers = {
        "melodica": instruments.harmonica,
        "organ": instruments.organ,
        "singer": lambda rng: sound.voice(rng, vibrato=0.2),
        "horns": instruments.brass,
    }
    name, lead = instruments.one_of(performance.rng, makers)
    rhythms = (
        [(0.5, 0.5), (1, 1), (2.5, 1)],
        [(0, 1.5), (2, 0.5), (2.5, 0.5)],
        [(1, 0.5), (1.5, 0.5), (2, 1.5)],
    )
    for _, beat, beats, pitch in performance.melody(list(rhythms[performance.rng.integers(3)]), 60, 76):
        if performance.rng.random() < 0.8:
            performance.add("lead", beat, lead(pitch, performance.lasting(beats)), performance.touch())
    performance.echo("lead", 0.75, performance.rng.uniform(0.2, 0.5))
    return f"{name} with echo"


# Rock


def rock_drums(performance: Performance) -> str:
    """The backbeat, eighths on the hat."""
    rng = performance.rng
    low = sound.kick(rng, pitch=rng.uniform(52, 62), seconds=0.22, click=0.5)
    back = sound.snare(rng, pitch=rng.uniform(180, 220), seconds=0.25, wires=1.4)
    hat = sound.cymbal(rng, seconds=rng.uniform(0.06, 0.2), low=5500)
    crash = sound.cymbal(rng, seconds=1.3, low=3500, bell=0.02)
    kicks = ((0, 2), (0, 2, 2.5), (0, 1.5, 2), (0, 0.5, 2.5))[rng.integers(4)]
    for bar, first in performance.bars:
        if bar % 4 == 0:
            performance.add("drums", first, crash, performance.touch(0.6, 0.8))
        for beat in kicks:
            performance.add("drums", first + beat, low, performance.touch(0.9, 1.0))
            performance.hits.append(performance.when(first + beat))
        for beat in (1, 3):
            performance.add("drums", first + beat, back, performance.touch(0.9, 1.0))
        for eighth in range(8):
            performance.add("drums", first + eighth / 2, hat, performance.touch(0.35, 0.6))
        if bar % 4 == 3:
            for sixteenth in range(4):
                performance.add("drums", first + 3 + sixteenth / 4, back, performance.touch(0.6, 0.9))
    return "backbeat"


def rock_bass(performance: Performance) -> str:
    """Picked eighths on the root."""
    bass = instruments.electric_bass(performance.rng)
    for bar, first in performance.bars:
        root = performance.root(bar, 28)
        for eighth in range(8):
            passing = 7 if eighth == 7 and performance.rng.random() < 0.4 else 0
            performance.add(
                "bass",
                first + eighth / 2,
                bass(root + passing, performance.lasting(0.48)),
                performance.touch(),
            )
    return "eighths on electric bass"


def rock_rhythm(performance: Performance) -> str:
    """Overdriven fifths: eighths or ringing chords."""
    guitar = sound.plucked(performance.rng, tilt=0.6, ring=1.2, damping=0.05)
    ringing = performance.rng.random() < 0.4
    for bar, first in performance.bars:
        root = performance.root(bar, 40)
        for place in (0.0, 1.5, 2.5, 3.0) if ringing else np.arange(0, 4, 0.5):
            strong = 1.0 if place % 1 == 0 else 0.75
            for step in (0, 7, 12):
                performance.add(
                    "chords",
                    first + float(place),
                    guitar(root + step, performance.lasting(1.4 if ringing else 0.5)),
                    strong * performance.touch(),
                )
    drive, top = performance.rng.uniform(1.2, 4.0), performance.rng.uniform(3500, 5500)
    performance.change("chords", lambda line: sound.overdrive(line, drive, 90, top))
    return "ringing overdriven guitar" if ringing else "overdriven eighths"


def rock_jangle(performance: Performance) -> str:
    """Picked open chords on a nearly clean guitar."""
    guitar = instruments.clean_guitar(performance.rng)
    for bar, first in performance.bars:
        tones = performance.tones(bar, 52)
        run = [tones[0], *[pitch + 12 for pitch in tones]]
        for eighth in range(8):
            performance.add(
                "chords",
                first + eighth / 2,
                guitar(run[(eighth * 3) % len(run)], performance.lasting(1.2)),
                performance.touch(),
            )
    drive = performance.rng.uniform(0.8, 1.6)
    performance.change("chords", lambda line: sound.overdrive(line, drive, 120, 6000))
    return "jangling guitar"


def rock_lead(performance: Performance) -> str:
    """A pentatonic guitar line, or a singer."""
    if performance.rng.random() < 0.4:
        singer = sound.voice(performance.rng, vibrato=0.1)
        for _, beat, beats, pitch in performance.melody(
            [(0, 0.5), (0.5, 0.5), (1, 1), (2, 0.5), (2.5, 1.2)], 55, 69, MINOR_PENTATONIC
        ):
            performance.add(
                "lead", beat, singer(pitch, performance.lasting(beats), -1.0), performance.touch()
            )
        performance.change("lead", lambda line: sound.overdrive(line, 1.0, 200, 6000))
        return "shouted voice"
    lead = instruments.lead_guitar(performance.rng)
    rhythm = [(eighth / 2, 0.5) for eighth in range(8) if performance.rng.random() < 0.6] or [(0.0, 2.0)]
    for _, beat, beats, pitch in performance.melody(rhythm, 60, 81, MINOR_PENTATONIC):
        performance.add(
            "lead",
            beat,
            lead(pitch, performance.lasting(1.3 * beats), float(performance.rng.choice([0, 0, -2]))),
            performance.touch(),
        )
    drive = performance.rng.uniform(2.0, 4.0)
    performance.change("lead", lambda line: sound.overdrive(line, drive, 200, 5500))
    return "overdriven lead guitar"
