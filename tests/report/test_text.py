import pytest

from agentrft.report.text import one_line, printable


@pytest.mark.parametrize(
    ("hostile", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),
        ("\x1b]0;new title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;cm0gLXJmIC8=\x07paste", "paste"),
        ("\x9b31mC1 colour", "C1 colour"),
        ("\x1bcreset", "reset"),
        ("\x1b(0charset", "charset"),
        ("\x1bP+q544e\x1b\\dcs", "dcs"),
        ("bell\x07back\x08space", "bellbackspace"),
        ("over\rwrite", "overwrite"),
        ("user\u202egnp.exe", "usergnp.exe"),
        ("unfinished \x1b[", "unfinished "),
        ("tab\tand\nnewline\r\nstay", "tab\tand\nnewline\nstay"),
        ("[red]markup[/red] ümlaut 漢字 🙂", "[red]markup[/red] ümlaut 漢字 🙂"),
    ],
)
def test_text_keeps_its_words_and_loses_its_powers(hostile: str, expected: str) -> None:
    assert printable(hostile) == expected


def test_an_unterminated_title_swallows_only_itself() -> None:
    assert printable("before\x1b]0;title without end") == "before"


def test_one_line_folds_and_cuts() -> None:
    assert one_line("a\n  b\tc", 10) == "a b c"
    assert one_line("abcdefghij", 5) == "abcd…"
