import pytest

from utils.disk.files import remove_unfinished, written_whole


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("first", "second"):
        with written_whole(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "first"
    assert path.read_text() == "second"
    with pytest.raises(OSError, match="no space"), written_whole(path) as temporary:
        temporary.write_text("thi")
        raise OSError("no space")
    assert path.read_text() == "second" and list(tmp_path.iterdir()) == [path]


def test_only_what_a_killed_process_was_writing_is_removed(tmp_path):
    names = (".a.png.12.tmp", ".mine.tmp", "a.png.12.tmp")
    for name in names:
        (tmp_path / name).write_text("")
    remove_unfinished(tmp_path.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])
