"""The instruments of the synthetic styles: each call draws one with random parameters."""

from collections.abc import Callable, Mapping

from genreflow.corpus.synthetic import sound
from genreflow.corpus.synthetic.sound import Generator, Instrument


def acoustic_guitar(rng: Generator) -> Instrument:
    return sound.plucked(rng, tilt=rng.uniform(0.3, 0.7), ring=rng.uniform(0.5, 0.9), damping=0.05)


def clean_guitar(rng: Generator) -> Instrument:
    return sound.plucked(rng, tilt=rng.uniform(0.7, 1.1), ring=rng.uniform(0.6, 1.1), vibrato=0.05)


def lead_guitar(rng: Generator) -> Instrument:
    return sound.plucked(
        rng,
        tilt=rng.uniform(0.6, 1.0),
        ring=rng.uniform(1.2, 2.2),
        damping=0.04,
        vibrato=rng.uniform(0.15, 0.4),
        glide=rng.uniform(0.12, 0.25),
    )


def upright_bass(rng: Generator) -> Instrument:
    return sound.plucked(
        rng, tilt=rng.uniform(1.4, 1.9), ring=rng.uniform(0.25, 0.45), damping=0.3, harmonics=20
    )


def electric_bass(rng: Generator) -> Instrument:
    return sound.plucked(
        rng, tilt=rng.uniform(0.9, 1.4), ring=rng.uniform(0.5, 0.9), damping=0.1, harmonics=28
    )


def synth_bass(rng: Generator) -> Instrument:
    return sound.sustained(
        rng, tilt=rng.uniform(0.9, 1.5), even=rng.uniform(0.2, 1.0), attack=0.004, release=0.04, harmonics=24
    )


def piano(rng: Generator) -> Instrument:
    return sound.struck(rng, ratio=1.0, index=rng.uniform(1.2, 2.2), ring=rng.uniform(0.5, 1.0), hammer=0.15)


def electric_piano(rng: Generator) -> Instrument:
    return sound.struck(rng, ratio=float(rng.choice([7.0, 14.0])), index=0.5, ring=rng.uniform(0.6, 1.2))


def strings(rng: Generator, attack: float = 0.12) -> Instrument:
    spread = rng.uniform(5, 11)
    return sound.sustained(
        rng,
        tilt=rng.uniform(0.9, 1.3),
        attack=attack,
        release=attack,
        vibrato=(rng.uniform(4.8, 6.0), 0.12),
        voices=(-spread, 0.3 * spread, spread),
    )


def violin(rng: Generator) -> Instrument:
    return sound.sustained(
        rng,
        tilt=rng.uniform(0.7, 1.1),
        attack=0.06,
        release=0.08,
        vibrato=(rng.uniform(5, 6.5), 0.25),
        breath=0.02,
    )


def flute(rng: Generator) -> Instrument:
    return sound.sustained(
        rng,
        tilt=rng.uniform(2.0, 2.6),
        attack=0.05,
        release=0.06,
        vibrato=(5.0, 0.15),
        breath=rng.uniform(0.04, 0.1),
    )


def saxophone(rng: Generator) -> Instrument:
    return sound.sustained(
        rng,
        tilt=rng.uniform(0.7, 1.1),
        even=rng.uniform(0.4, 0.8),
        attack=0.03,
        release=0.05,
        vibrato=(5.2, rng.uniform(0.1, 0.3)),
        breath=rng.uniform(0.05, 0.12),
    )


def brass(rng: Generator) -> Instrument:
    return sound.sustained(rng, tilt=rng.uniform(0.5, 0.9), attack=0.025, release=0.05, vibrato=(5.4, 0.1))


def harmonica(rng: Generator) -> Instrument:
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


def pedal_steel(rng: Generator) -> Instrument:
    return sound.sustained(
        rng,
        tilt=rng.uniform(1.3, 1.8),
        attack=0.05,
        release=0.2,
        vibrato=(rng.uniform(4.5, 6), 0.18),
        glide=rng.uniform(0.2, 0.4),
    )


def organ(rng: Generator) -> Instrument:
    return sound.sustained(
        rng,
        tilt=rng.uniform(0.8, 1.4),
        even=rng.uniform(0.6, 1.2),
        attack=0.006,
        release=0.02,
        vibrato=(rng.uniform(5.5, 6.8), 0.08),
        harmonics=9,
    )


def bright_synth(rng: Generator) -> Instrument:
    spread = rng.uniform(8, 16)
    return sound.sustained(
        rng,
        tilt=rng.uniform(0.5, 0.9),
        attack=0.01,
        release=0.08,
        voices=(-spread, -0.4 * spread, 0.6 * spread, spread),
    )


def square_synth(rng: Generator) -> Instrument:
    return sound.sustained(
        rng,
        tilt=rng.uniform(0.6, 1.0),
        even=rng.uniform(0.0, 0.3),
        attack=0.005,
        release=0.04,
        vibrato=(6.0, 0.08),
    )


def one_of(rng: Generator, makers: Mapping[str, Callable[[Generator], Instrument]]) -> tuple[str, Instrument]:
    name = str(rng.choice(list(makers)))
    return name, makers[name](rng)
