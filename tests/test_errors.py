"""Other libraries' errors inside the sentences of ours."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genreflow.core.errors import LONGEST_REASON, ModelError, SettingsError, one_line
from genreflow.families import family


@given(st.text(), st.booleans())
def test_any_error_becomes_one_printable_line_of_bounded_length(text: str, first: bool) -> None:
    line = one_line(ValueError(text), first)
    assert line
    assert line.isprintable()
    assert len(line) <= LONGEST_REASON


def test_an_error_without_a_text_is_given_as_its_type() -> None:
    assert one_line(TimeoutError(" \n")) == "TimeoutError"


def test_the_lines_after_the_first_are_left_out_where_they_say_nothing_to_the_reader() -> None:
    error = ValueError("(sqlite3.OperationalError) disk I/O error\n[SQL: SELECT 1]")
    assert one_line(error, first=True) == "(sqlite3.OperationalError) disk I/O error"
    assert one_line(error) == "(sqlite3.OperationalError) disk I/O error [SQL: SELECT 1]"


def test_a_text_that_is_too_long_shows_that_it_was_cut() -> None:
    assert one_line("word " * 100, longest=10) == "word word…"


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    kind = family("mfcc_cnn")
    settings = kind.settings_type()
    kind.save(kind.build(settings, ("jazz", "rock"), "inputs", 0), tmp_path)
    with pytest.raises(ModelError, match="do not fit") as caught:
        kind.load(tmp_path, settings, ("jazz", "rock", "pop"))
    assert "\n" not in str(caught.value)


def test_settings_that_do_not_fit_are_refused_in_one_line() -> None:
    with pytest.raises(SettingsError, match="no settings of the family mfcc_cnn") as caught:
        family("mfcc_cnn").settings({"dropout": 2, "noise": -1})
    assert "\n" not in str(caught.value)
