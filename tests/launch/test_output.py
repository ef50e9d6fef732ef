"""What programs print beside what they say themselves."""

import sys

from launch import output


class _Fails:
    """Python cannot raise what is raised where an object ends: it is printed."""

    def __init__(self, error: Exception):
        self._error = error

    def __del__(self):
        raise self._error


def test_only_writes_to_a_loop_that_is_closed_are_left_out(monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    output.leave_out_late_writes()
    _Fails(RuntimeError("Event loop is closed"))
    assert capsys.readouterr().err == ""
    _Fails(RuntimeError("another"))
    assert "RuntimeError: another" in capsys.readouterr().err
    _Fails(ValueError("Event loop is closed"))
    assert "ValueError: Event loop is closed" in capsys.readouterr().err
