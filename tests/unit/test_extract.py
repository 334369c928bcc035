import gzip
import io
import random
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest
import rarfile

from ltpa.archives.declare import Archive
from ltpa.archives.extract import STAMP, extract, extract_all
from ltpa.core.errors import DataError, LtpaError
from tests.unit.archive_makers import MAKERS, make_rar, make_rar5, make_tar, make_zip, rar5_link

CONTENT = {
    "top/a/one.jpg": b"first",
    "top/b/Two words.JPG": b"second" * 1000,
    "top/b/empty.jpg": b"",
    "top/readme.txt": b"not wanted",
    "stray": b"neither",
}
WANTED = {"top/a/one.jpg", "top/b/Two words.JPG", "top/b/empty.jpg"}
KINDS = ["tar.gz", "tar", "zip"]
MEMBERS = ["top/?/*"]


def declare(kind, limit_files=10, limit_bytes=100_000, members=MEMBERS, **keys):
    return Archive(
        name=f"x.{kind}",
        urls=["https://localhost/x"],
        kind=kind,
        limit_files=limit_files,
        limit_bytes=limit_bytes,
        members=members,
        **keys,
    )


def tree(folder):
    """Names and bytes of all files below a folder, stamps aside."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() and path.name != STAMP
    }


def names(folder):
    """Names of everything below a folder."""
    return sorted(path.name for path in folder.rglob("*"))


def unpack(data, archive, root):
    """Extract `data` in `root/in`; returns the target and everything below `root` beside the archive itself."""
    path = root / archive.name
    path.write_bytes(data)
    return extract(path, archive, root / "in" / "target")


@pytest.mark.parametrize("kind", KINDS)
def test_takes_what_is_on_the_list_and_nothing_else(kind, tmp_path):
    target = unpack(MAKERS[kind](CONTENT), declare(kind), tmp_path)
    assert tree(target) == {name: CONTENT[name] for name in WANTED}
    assert [path.name for path in target.parent.iterdir()] == ["target"]


@pytest.mark.parametrize("kind", KINDS)
def test_dots_and_folder_entries_are_harmless(kind, tmp_path):
    content = {"./top//a/./one.jpg": b"1"}
    assert tree(unpack(MAKERS[kind](content), declare(kind), tmp_path)) == {"top/a/one.jpg": b"1"}
    with_folders = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(with_folders, "w") as archive:
            archive.mkdir("top")
            archive.mkdir("top/a")
            archive.writestr("top/a/one.jpg", b"1")
    else:
        with tarfile.open(fileobj=with_folders, mode="w:gz" if kind == "tar.gz" else "w") as archive:
            for name in (".", "top", "top/a"):
                info = tarfile.TarInfo(name)
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            info = tarfile.TarInfo("top/a/one.jpg")
            info.size = 1
            archive.addfile(info, io.BytesIO(b"1"))
    other = tmp_path / "other"
    other.mkdir()
    assert tree(unpack(with_folders.getvalue(), declare(kind), other)) == {"top/a/one.jpg": b"1"}


def test_long_names_and_modes_of_old_tars(tmp_path):
    content = {f"top/a/{'n' * 180}.jpg": b"1"}
    for number, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            for name, data in content.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o6777
                archive.addfile(info, io.BytesIO(data))
        root = tmp_path / str(number)
        root.mkdir()
        target = unpack(buffer.getvalue(), declare("tar"), root)
        assert tree(target) == content
        assert all(stat.S_IMODE(path.stat().st_mode) & 0o7133 == 0 for path in target.rglob("*.jpg"))


def tar_header(name, size, kind=b"0"):
    info = tarfile.TarInfo(name)
    info.type = kind
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


A, B = "top/a/one.jpg", "top/a/two.jpg"
TAR_HOSTILE = {
    "symbolic link": make_tar({A: b"1", B: b""}, **{B: {"type": tarfile.SYMTYPE, "linkname": "/etc"}}),
    "symbolic link off the list": make_tar({A: b"1", "x": b""}, x={"type": tarfile.SYMTYPE, "linkname": ".."}),
    "hard link": make_tar({A: b"1", B: b""}, **{B: {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}}),
    "character device": make_tar({A: b"1", B: b""}, **{B: {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}}),
    "block device": make_tar({A: b"1", B: b""}, **{B: {"type": tarfile.BLKTYPE}}),
    "negative size": tar_header(A, b"\xff" * 11 + b"\x00") + bytes(2048),
    "pipe": make_tar({A: b"1", B: b""}, **{B: {"type": tarfile.FIFOTYPE}}),
    "sparse file": make_tar(
        {A: b"1", B: b""}, **{B: {"pax_headers": {"GNU.sparse.size": "99", "GNU.sparse.map": "0,0"}}}
    ),
}
ZIP_HOSTILE = {
    "symbolic link": make_zip({A: b"1", B: b"/etc"}, **{B: {"external_attr": 0o120777 << 16}}),
    "device": make_zip({A: b"1", B: b""}, **{B: {"external_attr": 0o020666 << 16}}),
    "encrypted": make_zip({A: b"1", B: b"2"}).replace(b"\x14\x00\x00\x00\x08", b"\x14\x00\x01\x00\x08"),
    "name cut by a zero byte": make_zip({A: b"1", "top/a/x\0.jpg": b"2"}),
}
NAMES_HOSTILE = {
    "absolute": {A: b"1", "/top/a/x": b"2"},
    "up": {A: b"1", "top/a/../../../x": b"2"},
    "up off the list": {A: b"1", "../x": b"2"},
    "up at the end": {A: b"1", "top/a/..": b"2"},
    "backslash": {A: b"1", "top\\a\\..\\x": b"2"},
    "drive": {A: b"1", "C:/top/a/x": b"2"},
    "drive without slash": {A: b"1", "c:x": b"2"},
    "control character": {A: b"1", "top/a/x\n.jpg": b"2"},
    "letter case": {A: b"1", "top/a/ONE.jpg": b"2"},
    "letter case of a folder": {A: b"1", "top/A/two.jpg": b"2"},
    "same letters composed otherwise": {"top/a/\u00e9.jpg": b"1", "top/a/e\u0301.jpg": b"2"},
    "twice by way of dots": {A: b"1", "top/./a/one.jpg": b"2"},
    "file as folder": {"top/a/x": b"1", "top/a/x/y": b"2"},
    "folder as file": {"top/a/x/y": b"1", "top/a/x": b"2"},
    "more bytes than allowed": {A: b"1", B: b"\0" * 100_000},
    "more files than allowed": {f"top/a/{i}": b"" for i in range(11)},
}


REASONS = {
    "symbolic": "is a (symbolic )?link",
    "hard": "is a link to '/etc/passwd'",
    "sparse": "is a sparse file",
    "negative": "has a negative size",
    "encrypted": "is encrypted",
    "absolute": "has an absolute path",
    "up": "leads out of its folder",
    "backslash": "leads out of its folder",
    "drive": "has a drive",
    "control": "has a control character",
    "letter": "differs only in letter case",
    "same": "differs only in letter case",
    "twice": "stands there twice",
    "file": "stands there twice",
    "folder": "stands there twice",
    "more": "(passes the allowed 100,000 bytes|is one file more than the allowed 10)",
}


def hostile_cases():
    cases = [("tar", name, data) for name, data in TAR_HOSTILE.items()]
    cases += [("tar.gz", name, gzip.compress(data)) for name, data in TAR_HOSTILE.items()]
    cases += [("zip", name, data) for name, data in ZIP_HOSTILE.items()]
    cases += [(kind, name, MAKERS[kind](content)) for name, content in NAMES_HOSTILE.items() for kind in KINDS]
    for kind, name, data in cases:
        reason = REASONS.get(name.split()[0], "(is a device|has a control character)")
        yield pytest.param(kind, data, reason, id=f"{kind} {name}")


@pytest.mark.parametrize(("kind", "data", "reason"), list(hostile_cases()))
def test_hostile_archives_are_refused_and_leave_nothing(kind, data, reason, tmp_path):
    with pytest.raises(DataError, match=rf"x\.{kind}: member '.*' {reason}") as caught:
        unpack(data, declare(kind), tmp_path)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["in", f"x.{kind}"]


@pytest.mark.parametrize("kind", KINDS)
def test_backslashes_of_windows_are_folders_and_said_to_be(kind, tmp_path):
    content = {name.replace("/", "\\"): data for name, data in CONTENT.items()}
    if kind == "zip":  # as some programs write folders: with a backslash at the end, and so like an empty file
        content = {"top\\": b"", "top\\a\\": b"", **content}
    path, said = tmp_path / f"x.{kind}", []
    path.write_bytes(MAKERS[kind](content))
    target = extract_all([path], [declare(kind)], tmp_path / "target", said.append)
    assert tree(target) == {name: CONTENT[name] for name in WANTED}
    assert len(said) == 1 and f"x.{kind}: " in said[0] and "backslashes" in said[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["\\top\\a\\x", "\\\\host\\top\\x", "top\\..\\..\\x", "C:\\top\\x"])
def test_backslashes_do_not_get_past_the_checks(kind, name, tmp_path):
    with pytest.raises(DataError, match=r"absolute path|leads out|drive"):
        unpack(MAKERS[kind]({A: b"1", name: b"2"}), declare(kind), tmp_path)
    assert names(tmp_path) == ["in", f"x.{kind}"]


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_members_are_passed_over(kind, tmp_path):
    hidden = {"top/a/._one.jpg": b"2", "top/__MACOSX/one.jpg": b"3", "top/a/Thumbs.db": b"4", "top/.x/one.jpg": b"5"}
    target = unpack(MAKERS[kind]({A: b"1", **hidden}), declare(kind, members=["*"]), tmp_path)
    assert tree(target) == {A: b"1"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_name_twice_is_refused(kind, tmp_path):
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(A, b"1")
            archive.writestr(A, b"2")
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w") as archive:
            for _ in range(2):
                archive.addfile(tarfile.TarInfo(A))
    with pytest.raises(DataError, match=f"'{A}' stands there twice"):
        unpack(buffer.getvalue(), declare(kind), tmp_path)
    assert names(tmp_path) == ["in", f"x.{kind}"]


def test_bytes_are_counted_not_believed(tmp_path):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(A, bytes(5_000_000))
    size = struct.pack("<I", 5_000_000)
    data = bomb.getvalue()
    assert data.count(size) == 2
    for claimed in (0, 10, 100_000):
        root = tmp_path / str(claimed)
        root.mkdir()
        with pytest.raises(DataError):
            unpack(data.replace(size, struct.pack("<I", claimed)), declare("zip"), root)
        assert names(root) == ["in", "x.zip"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("negative size", tar_header(A, b"\xff" * 10 + b"\xfc\0", b"L") + bytes(2048)),
        ("size of 8 GiB in a name header", tar_header(A, b"77777777777\0", b"L") + bytes(2048)),
        ("size of 8 GiB in a pax header", tar_header(A, b"77777777777\0", b"x") + bytes(2048)),
        ("long name header", tar_header("x", b"00010000000\0", b"L") + b"n" * 2**21 + make_tar({A: b"1"})),
        ("damaged second header", make_tar({A: b"1"})[:1024] + b"\1" * 512 + bytes(1024)),
        ("no end mark", make_tar({A: b"1"})[:1024]),
        ("cut within a member", make_tar({A: b"1" * 600})[:900]),
        ("endless padding", make_tar({A: b"1"}) + bytes(20_000_000)),
    ],
)
def test_lying_tar_headers_are_refused(name, data, tmp_path):
    for kind, content in (("tar", data), ("tar.gz", gzip.compress(data, 1))):
        root = tmp_path / kind
        root.mkdir()
        with pytest.raises(DataError, match="damaged, or not a"):
            unpack(content, declare(kind), root)
        assert names(root) == ["in", f"x.{kind}"]


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_an_error_of_ours_or_changes_nothing(kind, tmp_path):
    """Without a checksum: whatever is cut or flipped, no other exception, nothing left, nothing outside."""
    content = {f"top/a/{i}.bin": random.Random(i).randbytes(700) for i in range(4)}
    data = MAKERS[kind](content)
    rng = random.Random(3)
    refused = 0
    for number in range(200):
        damaged = bytearray(data[: rng.randrange(len(data))] if number % 2 else data)
        if not number % 2:
            position = rng.randrange(8 * len(data))
            damaged[position // 8] ^= 1 << position % 8
        root = tmp_path / str(number)
        root.mkdir()
        try:
            unpack(bytes(damaged), declare(kind), root)
        except DataError:
            refused += 1
            assert names(root) == ["in", f"x.{kind}"]
        else:
            if kind != "tar":  # the only one without checksums of its content
                assert set(tree(root / "in" / "target").values()) <= set(content.values())
            assert {path.name for path in root.iterdir()} == {"in", f"x.{kind}"}
            assert [path.name for path in (root / "in").iterdir()] == ["target"]
    assert refused > 60


def test_wrong_kind_and_missing_members(tmp_path):
    with pytest.raises(DataError, match="not a zip file"):
        unpack(make_tar(CONTENT), declare("zip"), tmp_path)
    with pytest.raises(DataError, match=r"holds no member like other/\*; is it the right archive"):
        unpack(make_tar(CONTENT), declare("tar", members=["other/*"]), tmp_path)
    with pytest.raises(DataError, match=r"none\.zip: no such archive"):
        extract(tmp_path / "none.zip", declare("zip"), tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_names_that_are_not_utf8_are_passed_over_or_refused(tmp_path):
    content = {A: b"1", "top/\udce9": b"off the list"}
    assert tree(unpack(make_tar(content, errors="surrogateescape"), declare("tar"), tmp_path)) == {A: b"1"}
    shutil.rmtree(tmp_path / "in")
    with pytest.raises(DataError, match="not UTF-8"):
        unpack(make_tar(content), declare("tar", members=["top/*"]), tmp_path)


def test_plain_files_are_linked_within_their_limit(tmp_path):
    archive = Archive(name="train.mat", urls=["https://localhost/x"], kind="mat")
    target = unpack(b"MATLAB", archive, tmp_path)
    assert tree(target) == {"train.mat": b"MATLAB"}
    assert (target / "train.mat").samefile(tmp_path / "train.mat")
    with pytest.raises(DataError, match="passes the allowed 5 bytes"):
        extract(tmp_path / "train.mat", archive.model_copy(update={"limit_bytes": 5}), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_plain_files_are_copied_where_they_cannot_be_linked(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("ltpa.archives.members.os.link", refuse)
    target = unpack(b"MATLAB", Archive(name="train.mat", urls=["https://localhost/x"], kind="mat"), tmp_path)
    assert tree(target) == {"train.mat": b"MATLAB"}
    assert not (target / "train.mat").samefile(tmp_path / "train.mat")


INNER = {"images/x/1.jpg": b"one", "images/x/2.jpg": b"two", "images/tmp": b"stray"}
NESTED = {"members": ["set/images/x/*"], "nested": ["set/inner.*"]}


@pytest.mark.parametrize("outer", KINDS)
@pytest.mark.parametrize("inner", KINDS)
def test_nested_archives(outer, inner, tmp_path):
    data = MAKERS[outer]({f"set/inner.{inner}": MAKERS[inner](INNER), "set/other.tar": b"never opened"})
    target = unpack(data, declare(outer, **NESTED), tmp_path)
    assert tree(target) == {"set/images/x/1.jpg": b"one", "set/images/x/2.jpg": b"two"}


@pytest.mark.parametrize(
    "inner",
    [
        make_tar({"../images/x/1.jpg": b"1"}),
        make_tar({"images/x/1.jpg": b""}, **{"images/x/1.jpg": {"type": tarfile.SYMTYPE, "linkname": "/"}}),
        make_tar({"images/x/1.jpg": bytes(100_001)}),
        make_tar({f"images/x/{i}": b"" for i in range(11)}),
        make_tar(INNER)[:700],
    ],
)
def test_nested_archives_are_no_way_round(inner, tmp_path):
    with pytest.raises(DataError):
        unpack(make_zip({"set/inner.tar": inner}), declare("zip", **NESTED), tmp_path)
    assert names(tmp_path) == ["in", "x.zip"]


def test_archives_do_not_nest_twice(tmp_path):
    twice = make_zip({"set/inner.zip": make_zip({"inner.zip": make_zip({"images/x/1.jpg": b"1"})})})
    with pytest.raises(DataError, match="holds no member"):
        unpack(twice, declare("zip", **NESTED), tmp_path)


def test_several_archives_share_a_target(tmp_path):
    one, two = declare("zip"), declare("tar")
    (tmp_path / "x.zip").write_bytes(make_zip({A: b"1"}))
    (tmp_path / "x.tar").write_bytes(make_tar({B: b"2"}))
    paths = [tmp_path / "x.zip", tmp_path / "x.tar"]
    assert tree(extract_all(paths, [one, two], tmp_path / "target")) == {A: b"1", B: b"2"}
    (tmp_path / "x.tar").write_bytes(make_tar({A.upper().replace("TOP/A", "top/a"): b"2"}))
    with pytest.raises(DataError, match="letter case"):
        extract_all(paths, [one, two], tmp_path / "other")


def test_a_complete_target_is_left_alone_and_another_one_refused(tmp_path):
    target = unpack(make_zip(CONTENT), declare("zip"), tmp_path)
    (target / A).write_bytes(b"touched")
    elsewhere = declare("zip").model_copy(update={"urls": ["https://localhost/mirror"]})
    assert extract(tmp_path / "x.zip", elsewhere, target) == target
    assert (target / A).read_bytes() == b"touched"
    with pytest.raises(DataError, match="delete it to extract them anew"):
        extract(tmp_path / "x.zip", declare("zip", members=["top/*"]), target)
    (target / STAMP).unlink()
    with pytest.raises(DataError, match="not extracted from these archives"):
        extract(tmp_path / "x.zip", declare("zip"), target)


def test_leftovers_of_a_killed_process_do_not_matter(tmp_path):
    draft = tmp_path / "in" / ".target.part" / "files" / "top" / "a"
    draft.mkdir(parents=True)
    (draft / "one.jpg").write_bytes(b"half")
    (tmp_path / "in" / ".target.lock").touch()
    assert tree(unpack(make_zip(CONTENT), declare("zip"), tmp_path)) == {name: CONTENT[name] for name in WANTED}
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["target"]


def test_full_disk_is_one_error_with_what_is_needed(tmp_path):
    (tmp_path / "x.zip").write_bytes(make_zip({A: bytes(90_000)}))
    script = """
        import resource, signal, sys
        from pathlib import Path
        from ltpa.archives.declare import Archive
        from ltpa.archives.extract import extract
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        extract(Path(sys.argv[1]), Archive.model_validate_json(sys.argv[2]), Path(sys.argv[3]))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "x.zip")]
    done = subprocess.run(
        [*command, declare("zip").model_dump_json(), str(tmp_path / "in" / "target")], capture_output=True, text=True
    )
    assert "DataError" in done.stderr
    assert f"cannot write '{A}' of x.zip (File too large); the extraction takes up to 100,000 bytes" in done.stderr
    assert list((tmp_path / "in").iterdir()) == []


def test_unwritable_target_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "x.zip").write_bytes(make_zip(CONTENT))
    with pytest.raises(LtpaError, match="cannot write here"):
        extract(tmp_path / "x.zip", declare("zip"), tmp_path / "file" / "target")


RARS = {"4": make_rar, "5": make_rar5}


@pytest.mark.parametrize("version", RARS)
def test_rar_of_both_versions(version, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # stored members need no tool
    data = RARS[version]({**CONTENT, "./top//a/./two.jpg": b"dots"})
    expected = {name: CONTENT[name] for name in WANTED} | {"top/a/two.jpg": b"dots"}
    assert tree(unpack(data, declare("rar"), tmp_path)) == expected


RAR_HOSTILE = {
    "symbolic link": make_rar({A: b"1", B: b"/etc"}, **{B: {"attributes": 0o120777}}),
    "symbolic link 5": make_rar5({A: b"1", B: b""}, **{B: {"extra": rar5_link(1, "/etc")}}),
    "link, hard 5": make_rar5({A: b"1", B: b""}, **{B: {"extra": rar5_link(4, A)}}),
    "link, as copy 5": make_rar5({A: b"1", B: b""}, **{B: {"extra": rar5_link(5, A)}}),
    "device": make_rar({A: b"1", B: b""}, **{B: {"attributes": 0o020666}}),
    "pipe 5": make_rar5({A: b"1", B: b""}, **{B: {"attributes": 0o010666}}),
    "encrypted": make_rar({A: b"1" * 50, B: b"2"}, **{B: {"flags": 0x4}}),
    "volumes": make_rar({A: b"1" * 50, B: b"2"}, **{B: {"flags": 0x2}}),
}
RAR_REASONS = {**REASONS, "link,": "is a link", "volumes": "goes on in another volume", "control": "", "letter": ""}


def hostile_rar_cases():
    yield from RAR_HOSTILE.items()
    for version, make in RARS.items():
        for name, content in NAMES_HOSTILE.items():
            yield f"{name} {version}", make(content)


@pytest.mark.parametrize(("name", "data"), list(hostile_rar_cases()))
def test_hostile_rar_files_are_refused(name, data, tmp_path):
    if name == "backslash 4":  # there it separates folders, so that this name leads out of its folder
        name = "up"
    reason = RAR_REASONS.get(name.split()[0], "is a device")
    with pytest.raises(DataError, match=rf"x\.rar: member '.*' {reason}") as caught:
        unpack(data, declare("rar"), tmp_path)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["in", "x.rar"]


@pytest.mark.parametrize("version", RARS)
def test_damaged_rar_files_are_refused_or_read_right(version, tmp_path):
    content = {f"top/a/{i}.bin": random.Random(i).randbytes(700) for i in range(4)}
    data, rng, refused = RARS[version](content), random.Random(3), 0
    for number in range(150):
        damaged = bytearray(data[: rng.randrange(len(data))] if number % 3 == 0 else data)
        if number % 3:
            position = rng.randrange(len(data)) if number % 3 == 1 else rng.randrange(100)
            damaged[position] ^= 1 << rng.randrange(8)
        root = tmp_path / str(number)
        root.mkdir()
        try:
            unpack(bytes(damaged), declare("rar"), root)
        except DataError:
            refused += 1
            assert names(root) == ["in", "x.rar"]
        else:
            assert set(tree(root / "in" / "target").values()) <= set(content.values())
    assert refused >= 120


HUGE = b"\xff" * 8 + b"\x7f"  # 2 ** 63 - 1 as a number of version 5


@pytest.mark.parametrize(
    "tail",
    [
        b"\0\0\0\0" + HUGE,  # length of the header
        b"\0\0\0\0" + bytes([12]) + b"\x03\x02" + HUGE,  # length of the data
        b"\0\0\0\0" + bytes([16]) + b"\x02\0\0\0\0\0\0" + HUGE,  # length of a name
    ],
)
def test_headers_that_lie_about_lengths_are_refused(tmp_path, tail):
    end = -8  # bytes of the mark at the end
    with pytest.raises(DataError, match="damaged, or not a rar file"):
        unpack(make_rar5({A: b"1"})[:end] + tail, declare("rar"), tmp_path)


def test_old_rar_files_have_no_mark_at_their_end(tmp_path):
    end = -7
    assert tree(unpack(make_rar({A: b"1"})[:end], declare("rar"), tmp_path)) == {A: b"1"}


# Compressed members go through a tool. Nothing here can compress them: they are stored, and said to be compressed.

UNRAR = """
    if sys.argv[1] == "p":
        data = open(sys.argv[-1], "rb").read()  # of one member: prefix, header, its bytes, and in version 5 a mark
        data = data[21 + data[20] : -8] if data[6] else data[20 + int.from_bytes(data[25:27], "little") :]
        sys.stdout.buffer.write(data)
"""


def compressed(make, content):
    return make(content, **{name: {"method": 0x33} for name in content})


def stand_in(folder, monkeypatch, body, tool="unrar"):
    """Make a stand-in the only tool that is found."""
    folder.mkdir()
    script = folder / tool
    script.write_text(f"#!{sys.executable} -S\nimport sys\n{textwrap.dedent(body)}")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize("make", RARS.values())
def test_compressed_rar_members_go_through_a_tool(make, tmp_path, monkeypatch):
    stand_in(tmp_path / "bin", monkeypatch, UNRAR)
    assert tree(unpack(compressed(make, CONTENT), declare("rar"), tmp_path)) == {name: CONTENT[name] for name in WANTED}
    with pytest.raises(DataError, match="passes the allowed 3 bytes"):
        extract(tmp_path / "x.rar", declare("rar", limit_bytes=3), tmp_path / "other")


@pytest.mark.parametrize(
    "body",
    [
        "sys.exit(3 * (sys.argv[1] == 'p'))",
        UNRAR.replace("write(data)", "write(data[:-1])"),
        UNRAR.replace("write(data)", "write(data[::-1])"),
    ],
)
def test_tools_that_fail_are_reported(body, tmp_path, monkeypatch):
    stand_in(tmp_path / "bin", monkeypatch, body)
    with pytest.raises(DataError, match=r"damaged, or not a rar file .*; another tool may read it: install unar"):
        unpack(compressed(make_rar, CONTENT), declare("rar"), tmp_path)
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.parametrize("tool", ["none", "bsdtar"])
def test_no_tool_is_a_clear_remedy(tool, tmp_path, monkeypatch):
    stand_in(tmp_path / "bin", monkeypatch, "", tool)
    with pytest.raises(DataError, match=r"x\.rar: cannot be unpacked; install unar, 7z or RARLAB's unrar"):
        unpack(compressed(make_rar, CONTENT), declare("rar"), tmp_path)


@pytest.mark.parametrize("tool", ["unar", "7z", "unrar"])
@pytest.mark.parametrize("make", RARS.values())
def test_rar_with_a_real_tool(tool, make, tmp_path, monkeypatch):
    found = shutil.which(tool)
    if found is None or "unrar-free" in Path(found).resolve().name:
        pytest.skip(f"{tool} is not installed")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(rarfile, "FORCE_TOOL", True)  # for stored members, too
    monkeypatch.setattr(rarfile, "CURRENT_SETUP", None)
    assert tree(unpack(make(CONTENT), declare("rar"), tmp_path)) == {name: CONTENT[name] for name in WANTED}
