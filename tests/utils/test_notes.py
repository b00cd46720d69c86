from utils.notes import say_once


def test_a_note_is_printed_once(capsys):
    for _ in range(2):
        say_once("of this test")
    assert capsys.readouterr() == ("", "of this test\n")
