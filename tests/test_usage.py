"""What a piece of work took is its own, whoever started it."""

from __future__ import annotations

from collections.abc import Callable

from edgetune.usage import forget_peak_resident, peak_resident_bytes


def test_the_peak_of_a_child_is_not_that_of_the_program_that_started_it(run_python: Callable[[str], str]):
    ballast = bytearray(b"x") * 400_000_000
    peak = int(run_python("from edgetune.usage import peak_resident_bytes\nprint(peak_resident_bytes())"))
    del ballast
    assert 5_000_000 < peak < 100_000_000


def test_the_peak_holds_what_was_given_back_until_it_is_forgotten():
    before = peak_resident_bytes()
    ballast = bytearray(b"x") * 200_000_000
    del ballast
    grown = peak_resident_bytes()
    if forget_peak_resident():
        ballast = bytearray(b"x") * 100_000_000
        del ballast
        assert peak_resident_bytes() < grown or grown == before
