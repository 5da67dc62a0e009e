import hashlib
import os

import pytest

from blackswan.data.files import (
    MAX_NAME,
    check_name,
    counted_folders,
    frame_name,
    is_plain,
    list_files,
    list_images,
    listed,
    name_by_stem,
    refuse_twins,
    tell_left_out,
)
from blackswan.errors import InputError


def refused(act, *words):
    with pytest.raises(InputError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


def test_list_images(tmp_path):
    for name in (
        "b/2.PNG",
        "a.jpeg",
        "b-c/1.tif",
        "b/.hidden.png",
        ".git/x.png",
        "._a.png",
        "notes.txt",
        "b/10.webp",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a.jpeg", "b-c/1.tif", "b/10.webp", "b/2.PNG"]
    refused(lambda: list_images(tmp_path / "absent"), tmp_path / "absent", "is not a folder")


def test_what_is_left_out_is_counted_by_suffix(tmp_path, capsys):
    names = ("0.jpg", "1.JFIF", "2.HEIC", "a/3.heic", "a/4.pgm", "a/README", ".hidden/5.heic")
    for name in (*names, ".6.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = list_files(tmp_path, {".jpg", ".jfif"})
    assert [path.name for path in found.files] == ["0.jpg", "1.JFIF"]
    assert found.left_out == {".heic": 2, ".pgm": 1, "": 1}
    tell_left_out(tmp_path, found.left_out)
    assert capsys.readouterr().err == (
        f"{tmp_path}: left out 1 without suffix, 2 .heic, 1 .pgm; `pip install pillow-heif` reads "
        "HEIC\n"
    )
    (tmp_path / "b").mkdir()
    tell_left_out(tmp_path / "b", list_files(tmp_path / "b").left_out)
    assert capsys.readouterr().err == ""


def test_folders_are_listed_with_their_counts():
    assert counted_folders(["b/0", "a/c/1", "b/2", "3"]) == "the folder itself (1), a/c (1), b (2)"
    many = counted_folders([f"{number}/image" for number in range(10)])
    assert many.endswith("7 (1), 2 more")


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"caf\xe9/a.png"])
def test_names_that_are_not_utf8(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    try:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    refused(lambda: list_images(tmp_path), tmp_path, r"caf\xe9", "rename it")


def test_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    def deny(_):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "scandir", deny)
    refused(lambda: list_images(tmp_path), tmp_path, "Permission denied", "make it readable")


def test_broken_link(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "absent.png")
    refused(lambda: list_images(tmp_path), tmp_path / "a.png", "broken link")


def test_name_by_stem(tmp_path):
    paths = [tmp_path / "a" / "1.x.png", tmp_path / "a.png"]
    assert name_by_stem(tmp_path, paths) == {"a/1.x": paths[0], "a": paths[1]}
    refused(
        lambda: name_by_stem(tmp_path, [tmp_path / "a.png", tmp_path / "a.jpg"]),
        tmp_path / "a.png",
        tmp_path / "a.jpg",
        "rename one",
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb.png", r"a\nb.png"),
        ("a\rb.png", r"a\rb.png"),
        ("a\x1b[2J.png", r"a\x1b[2J.png"),
        ("a\u2028b.png", r"a\u2028b.png"),
        ("a\nb/c.png", r"a\nb/c.png"),
    ],
)
def test_names_that_break_a_line_are_refused_in_one_line(tmp_path, name, shown):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    refused(
        lambda: list_images(tmp_path), f"{tmp_path} holds the name {shown}, which has a control"
    )


def test_the_name_of_the_source_itself_is_checked(tmp_path):
    (tmp_path / "a\rb").mkdir()
    refused(lambda: list_images(tmp_path / "a\rb"), f"{tmp_path} holds the name a\\rb,")


@pytest.mark.parametrize(
    "name", ["at 9.41\u202fAM.png", " a.png", 'a,"b".png', "a\u00a0b.png", "ü"]
)
def test_odd_names_that_stay_in_their_line_are_taken(tmp_path, name):
    assert is_plain(name)
    check_name(tmp_path, tmp_path / name)


def test_a_long_name_that_is_refused_is_cut(tmp_path):
    (tmp_path / ("x" * 240 + "\n.png")).touch()
    with pytest.raises(InputError) as caught:
        list_images(tmp_path)
    assert len(str(caught.value)) < len(str(tmp_path)) + 230


def pictures(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_links_to_folders_are_followed(tmp_path):
    store = pictures(tmp_path / "store", "1.png", "2.png")
    source = pictures(tmp_path / "source", "0.png")
    (source / "normal").symlink_to(store)
    (source / ".hidden").symlink_to(source)  # would have no end
    found = [path.relative_to(source).as_posix() for path in list_images(source)]
    assert found == ["0.png", "normal/1.png", "normal/2.png"]
    (tmp_path / "link").symlink_to(source)
    assert len(list_images(tmp_path / "link")) == 3


def test_a_link_without_end(tmp_path):
    pictures(tmp_path / "a/b", "0.png")
    (tmp_path / "a/b/c").symlink_to(tmp_path / "a")
    refused(lambda: list_images(tmp_path), "a/b/c leads back to", tmp_path / "a", "remove the link")


def test_a_link_to_a_folder_above_the_source(tmp_path):
    pictures(tmp_path / "source", "0.png")
    (tmp_path / "source/up").symlink_to(tmp_path)
    refused(lambda: list_images(tmp_path / "source"), "source/up/source leads back to")


def test_a_folder_under_two_names(tmp_path):
    pictures(tmp_path / "a", "0.png")
    (tmp_path / "b").symlink_to("a")
    refused(lambda: list_images(tmp_path), tmp_path / "a", tmp_path / "b", "are one folder; remove")


def test_a_link_to_a_folder_that_is_gone(tmp_path):
    pictures(tmp_path, "0.png")
    (tmp_path / "normal").symlink_to("/mnt/gone/normal")
    refused(
        lambda: list_images(tmp_path), tmp_path / "normal", "is a broken link", "mend or remove"
    )


def test_a_link_that_was_copied_as_text(tmp_path):
    pictures(tmp_path / "store", "0.png")
    source = pictures(tmp_path / "source", "0.png", "README")
    (source / "LICENSE").write_text("no folder\n")
    (source / "long").write_text("x" * 300)
    assert len(list_images(source)) == 1
    (source / "normal").write_text("../store")
    refused(
        lambda: list_images(source), source / "normal", "names the folder ../store", "replace it"
    )


def test_one_file_under_two_names(tmp_path):
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "c.png").symlink_to("a.png")
    os.link(tmp_path / "b.png", tmp_path / "d.png")  # a name of equal standing, as in a DVC cache
    refuse_twins([tmp_path / name for name in ("a.png", "b.png", "d.png")])
    refused(
        lambda: refuse_twins(list_images(tmp_path)),
        tmp_path / "a.png",
        tmp_path / "c.png",
        "are one file; remove one of the links",
    )


def test_folders_nested_beyond_what_the_system_takes(tmp_path, monkeypatch):
    def deny(_):
        raise OSError(36, "File name too long", str(tmp_path))

    monkeypatch.setattr(os, "scandir", deny)
    refused(lambda: list_images(tmp_path), "File name too long", "shorten the names of its folders")


def test_frame_names_leave_room_for_what_stages_add():
    assert frame_name("test/hole/000") == "test/hole/000"
    long = "ü" * 120
    short = frame_name(f"a/{long}")
    digest = hashlib.sha256(long.encode()).hexdigest()[:16]
    assert short == f"a/{'ü' * 91}~{digest}"
    assert len(short.encode()) <= 2 + MAX_NAME
    assert frame_name(f"{long}b") != frame_name(f"{long}a")
    assert frame_name("x" * MAX_NAME) == "x" * MAX_NAME
    refused(lambda: frame_name("/".join(["folder"] * 200)), "has 1399 bytes, the limit is 1000")


def test_many_names_are_counted():
    assert listed(["b", "a"]) == "b, a"
    assert listed([]) == ""
    assert listed([f"{n}" for n in range(20)]) == "0, 1, 2, 3, 4, 5, 6, 7, 12 more"
    message = listed(["x" * 300, "a\nb", *"cdefghij"])
    assert message == "xxxxxxxxxxxxxxxxx..., a\\nb, c, d, e, f, g, h, 2 more"
