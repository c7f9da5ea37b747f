"""Errors are one line, whatever they are made of."""

from __future__ import annotations

from mlipkit.errors import RunError


def test_an_error_is_one_line_of_sentences():
    assert str(RunError("no cell", where=("a.xyz", "frame 3"), hint="Give one")) == "a.xyz: frame 3: no cell. Give one"
    # What a run died of is a sentence already.
    assert str(RunError("broke.\nTry again.", where="md", hint="See log.txt")) == "md: broke. Try again. See log.txt"
