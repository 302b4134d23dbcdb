"""Parts of command lines for messages, quoted so that a shell passes them on as they are meant."""

import re
import shlex
from typing import Any

import yaml

PLAIN = re.compile(
    r"[\n\x20-\x7e\u00a1-\u061b\u061d-\u200d\u2010-\u2027\u2030-\u205f\u2070-\ud7ff\ue000-\ufefe\uff00-\ufffd"
    r"\U00010000-\U000dffff]*"
)
"""What a terminal shows as it is: no control characters, none that turn the direction of writing."""


def set_option(key: str, value: Any) -> str:
    """`--set KEY=VALUE` for a shell, the value in YAML on one line.

    Texts that YAML would not read as such (`1`, `no`, `#1 Hits`) are quoted for YAML, then all for the shell.
    """
    return f"--set {shlex.quote(f'{key}={flow(value)}')}"


def flow(value: Any) -> str:
    """A value as YAML in flow style, on one line.

    Emoji and letters of every script stay; where a character breaks the line or turns the direction of
    writing, all that are not ASCII become escapes.
    """
    written = _dumped(value, allow_unicode=True)
    if not PLAIN.fullmatch(written):
        written = _dumped(value, allow_unicode=False)
    return written.removesuffix("...\n").strip("\n")


class _Dumper(yaml.SafeDumper):
    """Double quotes where quotes are needed: single ones would end the shell's."""

    def choose_scalar_style(self) -> str:
        style: str = super().choose_scalar_style()
        return '"' if style == "'" else style


def _dumped(value: Any, allow_unicode: bool) -> str:
    written: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, allow_unicode=allow_unicode, width=float("inf")
    )
    return written
