"""Files of a folder by name: nothing outside of it is opened (FAULTS S31)."""

import os

import pytest

from jobs.engines import folders
from jobs.errors import ErrorCode, JobError


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root" / "in").mkdir(parents=True)
    (tmp_path / "root" / "in" / "a.mp4").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    return tmp_path / "root"


def copied(root, name, most=100) -> bytes:
    return folders.copy(root, name, root.parent / "copy", most=most, check=lambda: None).read_bytes()


def failure(root, name, **options) -> tuple[ErrorCode, bool]:
    with pytest.raises(JobError) as raised:
        copied(root, name, **options)
    assert str(root) not in raised.value.message
    return raised.value.code, raised.value.retryable


def test_copies_a_file_also_by_a_link_within(root):
    (root / "link.mp4").symlink_to("in/a.mp4")
    (root / "also").symlink_to(root / "in")
    assert copied(root, "in/a.mp4") == copied(root, "link.mp4") == copied(root, "also/a.mp4") == b"inside"


def test_the_root_may_be_a_link_itself(root):
    (root.parent / "alias").symlink_to(root)
    assert copied(root.parent / "alias", "in/a.mp4") == b"inside"


@pytest.mark.parametrize("name", ["../secret", "in/../../secret", "out.mp4", "outer/secret"])
def test_what_leads_out_is_refused(root, name):
    (root / "out.mp4").symlink_to(root.parent / "secret")
    (root / "outer").symlink_to(root.parent)
    assert folders.leads_out(root, name)
    assert failure(root, name) == (ErrorCode.bad_input, False)


def test_a_folder_or_a_pipe_is_no_file(root):
    os.mkfifo(root / "pipe.mp4")
    assert failure(root, "in") == failure(root, "pipe.mp4") == (ErrorCode.bad_input, False)


@pytest.mark.parametrize("name", ["none.mp4", "none/a.mp4", "in/a.mp4/x"])
def test_what_is_not_there_may_come_yet(root, name):
    assert not folders.leads_out(root, name)
    assert failure(root, name) == (ErrorCode.input_gone, True)


def test_a_root_that_is_not_there_may_come_yet(root):
    assert failure(root / "missing", "a.mp4") == (ErrorCode.input_gone, True)


def test_a_link_in_circles_is_a_fault_of_the_storage(root):
    (root / "loop.mp4").symlink_to("loop.mp4")
    assert failure(root, "loop.mp4") == (ErrorCode.storage_error, True)


def test_too_large_a_file_is_refused(root):
    assert failure(root, "in/a.mp4", most=5) == (ErrorCode.bad_input, False)


def test_a_link_put_in_place_meanwhile_is_not_followed(root, monkeypatch):
    """The name is looked at, then opened: between the two somebody swaps the file for a link."""
    plain = os.path.realpath

    def swapping(path, **options):
        found = plain(path, **options)
        if os.path.basename(path) == "a.mp4":
            os.remove(root / "in" / "a.mp4")
            os.symlink(root.parent / "secret", root / "in" / "a.mp4")
        return found

    monkeypatch.setattr(os.path, "realpath", swapping)
    assert failure(root, "in/a.mp4")[0] is ErrorCode.storage_error
