from utils.notes import said_in_a_report, say_once


def test_a_note_is_printed_once(capsys):
    for _ in range(2):
        say_once("of this test")
    assert capsys.readouterr() == ("", "of this test\n")


def test_a_note_that_a_report_holds_is_not_printed(capsys):
    with said_in_a_report():
        say_once("in the report")
    say_once("in the report")
    say_once("after the report")
    assert capsys.readouterr() == ("", "after the report\n")
