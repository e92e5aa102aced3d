import pytest

from agentrft.cli.console import note, print_error


def test_an_error_is_short_red_text_with_its_field(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("batch_size is 0; expected 1 or more", param="training.batch_size")
    text = capsys.readouterr().err
    assert text == "error: batch_size is 0; expected 1 or more\n  in: training.batch_size\n"


def test_a_field_that_the_message_names_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("`model` is missing", param="model")
    assert capsys.readouterr().err == "error: `model` is missing\n"


def test_hostile_text_in_messages_is_shown_but_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("got '\x1b[2J[red]x[/red]\x07'")
    note("\x1b]0;title\x07named [bold]x")
    text = capsys.readouterr().err
    assert "\x1b" not in text
    assert "[red]x[/red]" in text
    assert "named [bold]x" in text
