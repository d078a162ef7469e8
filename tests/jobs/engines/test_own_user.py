"""A child's own user: what is open to it, the folder that it is lent, and that nothing of it is left."""

import os
import shutil
import tempfile
import threading
from pathlib import Path

import pytest

from jobs import procfs
from jobs.engines import own_user, process

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a user away; the log and /health say so")


@pytest.fixture
def open_folder():
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("folder", "file", "kept"),
    [(0o755, 0o755, ""), (0o711, 0o644, ""), (0o700, 0o755, "folder"), (0o755, 0o700, "file"), (0o755, 0o744, "file")],
)
def test_what_keeps_another_user_from_a_program(open_folder, folder, file, kept):
    path = open_folder / "bin" / "program"
    path.parent.mkdir()
    path.touch()
    path.chmod(file)
    path.parent.chmod(folder)
    assert own_user.kept_from(str(path)) == {"": "", "folder": str(path.parent), "file": str(path)}[kept]
    assert own_user.kept_from(str(path) + "-not") == ""


def test_a_link_leads_through_both_folders(open_folder):
    shut = open_folder / "shut"
    shut.mkdir(0o700)
    (shut / "program").touch(0o755)
    (open_folder / "program").symlink_to(shut / "program")
    assert own_user.kept_from(str(open_folder / "program")) == str(shut)


@as_root
def test_the_folder_comes_back_without_what_would_lead_elsewhere(tmp_path):
    """A link that we would follow, a pipe that we would wait for, a second name of a file that the next child would be
    given, folders nested deeper than Python's own rmtree follows."""
    uid, folder, foreign = own_user.of_this_thread(), tmp_path / "work", tmp_path / "foreign"
    folder.mkdir(0o700)
    foreign.write_text("ours")
    for name in ("input", "made"):
        (folder / name).write_text(name)
    own_user.give(folder, uid)
    assert {path.stat().st_uid for path in (folder, folder / "input")} == {uid}
    (folder / "link").symlink_to(foreign)
    os.mkfifo(folder / "pipe")
    os.link(foreign, folder / "second-name")
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1050):
        os.mkdir("deep", dir_fd=here)
        here, above = os.open("deep", os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(here)
    own_user.take(folder, uid)
    assert sorted(path.name for path in folder.iterdir()) == ["input", "made"]
    assert {path.stat().st_uid for path in (folder, folder / "input", foreign)} == {0}


@as_root
def test_a_file_that_has_two_names_in_the_folder_keeps_both(tmp_path):
    """INGEST's key frames are such: the film's own and the contact sheet's."""
    uid = own_user.of_this_thread()
    (tmp_path / "frame").write_text("picture")
    os.link(tmp_path / "frame", tmp_path / "keyframe")
    own_user.give(tmp_path, uid)
    own_user.take(tmp_path, uid)
    assert {(path.name, path.stat().st_uid) for path in tmp_path.iterdir()} == {("frame", 0), ("keyframe", 0)}


@as_root
def test_two_threads_children_are_two_users(tmp_path):
    seen = []

    def run(name: str) -> None:
        (tmp_path / name).mkdir()
        process.run(["id", "-u"], cwd=tmp_path / name, limits=process.Limits(), on_line=seen.append)

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 2
    assert str(os.getuid()) not in seen


@as_root
def test_what_forks_on_and_on_is_caught(tmp_path):
    """Each process starts the next and ends, so a walk over /proc may see none. Seen to fail without the kill."""
    relay = '[ $2 -eq 0 ] || sh -c "$1" sh "$1" $(($2 - 1)) & [ $2 -gt 990 ] || : > began'
    script = f'code=\'{relay}\'; (setsid sh -c "$code" sh "$code" 1000 &); until [ -e began ]; do sleep 0.01; done'
    assert process.run(["sh", "-c", script], cwd=tmp_path, limits=process.Limits()).returncode == 0
    uid = own_user.of_this_thread()
    assert not any(procfs.owner(pid) == uid and procfs.started(pid) for _ in range(50) for pid in procfs.pids())
