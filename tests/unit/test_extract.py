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

from ltpa.archives.declare import Archive
from ltpa.archives.extract import STAMP, extract, extract_all
from ltpa.archives.rar_headers import rar_headers
from ltpa.core.errors import DataError, LtpaError
from tests.unit.archive_makers import MAKERS, make_rar, make_rar5, make_tar, make_zip

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


# RAR. The tools may not be installed, so each has a stand-in: it gets the same arguments and answers in the same form,
# but reads a tar (bsdtar) or zip file (the others). Real tools are tried too, where they are there.

STAND_INS = {
    "bsdtar": """
        assert sys.argv[1:5] == ["-c", "-f", "-", "--format=pax"]
        sys.stdout.buffer.write(open(sys.argv[5].removeprefix("@"), "rb").read())
    """,
    "7z": """
        with zipfile.ZipFile(sys.argv[-1]) as archive:
            for info in archive.infolist():
                if sys.argv[1] == "x":
                    sys.stdout.buffer.write(archive.read(info))
                    continue
                mode = info.external_attr >> 16
                print(f"Path = {info.filename.rstrip('/')}\\nSize = {info.file_size}\\nPacked Size = 1")
                print(f"Attributes = {'D' if info.is_dir() else 'A'} {stat.filemode(mode)}")
                print(f"Encrypted = -\\nCRC = {info.CRC:08X}\\nMethod = Store\\n")
    """,
    "unrar": """
        with zipfile.ZipFile(sys.argv[-1]) as archive:
            if sys.argv[1] == "lt":
                print("\\nUNRAR 6.21 freeware      Copyright (c)\\n\\nArchive: x.rar\\nDetails: RAR 5\\n")
            for info in archive.infolist():
                if sys.argv[1] == "p":
                    sys.stdout.buffer.write(archive.read(info))
                    continue
                link = stat.S_ISLNK(info.external_attr >> 16)
                kind = "Directory" if info.is_dir() else "Unix symbolic link" if link else "File"
                print(f"        Name: {info.filename.rstrip('/')}\\n        Type: {kind}")
                print(f"        Size: {info.file_size}\\n Packed size: 1\\n       CRC32: {info.CRC:08X}\\n")
    """,
}
STAND_IN_KINDS = {"bsdtar": make_tar, "7z": make_zip, "unrar": make_zip}


def stand_in(folder, monkeypatch, tool, body=None):
    """Make a stand-in of `tool` the only one that is found."""
    folder.mkdir()
    script = folder / tool
    code = textwrap.dedent(STAND_INS[tool] if body is None else body)
    script.write_text(
        f"#!{sys.executable}\nimport stat, sys, zipfile\nsys.stdout.reconfigure(encoding='utf-8')\n{code}"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize("tool", STAND_INS)
def test_rar_through_each_tool(tool, tmp_path, monkeypatch):
    stand_in(tmp_path / "bin", monkeypatch, tool)
    data = STAND_IN_KINDS[tool](CONTENT)
    assert tree(unpack(data, declare("rar"), tmp_path)) == {name: CONTENT[name] for name in WANTED}


LINK = {
    "bsdtar": {"type": tarfile.SYMTYPE, "linkname": "/etc"},
    "7z": {"external_attr": 0o120777 << 16},
    "unrar": {"external_attr": 0o120777 << 16},
}


@pytest.mark.parametrize("tool", STAND_INS)
@pytest.mark.parametrize("name", [*NAMES_HOSTILE, "link"])
def test_hostile_rar_files_are_refused(tool, name, tmp_path, monkeypatch):
    if name == "control character" and tool != "bsdtar":
        pytest.skip("a line end in a name ends the line of the list, and what follows is no known field")
    stand_in(tmp_path / "bin", monkeypatch, tool)
    content = NAMES_HOSTILE.get(name, {A: b"1", B: b""})
    data = STAND_IN_KINDS[tool](content, **({B: LINK[tool]} if name == "link" else {}))
    with pytest.raises(DataError, match=r"x\.rar: member"):
        unpack(data, declare("rar"), tmp_path)
    assert list((tmp_path / "in").iterdir()) == []


@pytest.mark.parametrize(
    ("tool", "body", "message"),
    [
        ("bsdtar", "sys.exit('Unsupported block')", "damaged"),
        ("bsdtar", STAND_INS["bsdtar"] + "\n        sys.exit('Damaged at the end')", "bsdtar cannot read it .Damaged"),
        ("7z", "sys.exit('Wrong password')", "7z cannot read it .Wrong password"),
        ("7z", STAND_INS["7z"].replace("CRC:08X", "CRC ^ 1:08X"), "cut or damaged"),
        ("7z", STAND_INS["7z"].replace("archive.read(info)", "archive.read(info)[:-1]"), "cut or damaged"),
        ("7z", STAND_INS["7z"].replace("archive.read(info)", "archive.read(info) + b'x'"), "cut or damaged"),
        ("7z", STAND_INS["7z"] + "\n        if sys.argv[1] == 'x':\n            print('more')", "7z cannot read it"),
        ("7z", STAND_INS["7z"].replace("Encrypted = -", "Encrypted = +"), "is encrypted"),
        ("unrar", STAND_INS["unrar"].replace("Packed size", "Flags: encrypted\\n Packed size"), "is encrypted"),
    ],
)
def test_tools_that_fail_are_reported(tool, body, message, tmp_path, monkeypatch):
    stand_in(tmp_path / "bin", monkeypatch, tool, body)
    with pytest.raises(DataError, match=message):
        unpack(STAND_IN_KINDS[tool](CONTENT), declare("rar"), tmp_path)
    assert list((tmp_path / "in").iterdir()) == []


def test_no_tool_is_a_clear_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"install bsdtar \(package libarchive-tools\), 7z or RARLAB's unrar"):
        unpack(make_rar(CONTENT), declare("rar"), tmp_path)


@pytest.mark.parametrize("after", [{}, {"z.txt": b"last"}])
def test_encrypted_rar_members_are_seen_before_bsdtar_runs(tmp_path, monkeypatch, after):
    stand_in(tmp_path / "bin", monkeypatch, "bsdtar", "raise SystemExit('never asked')")
    data = make_rar({A: b"1" * 50, B: b"2", **after}, **{B: {"flags": 0x4}})
    with pytest.raises(DataError, match=rf"x\.rar: member '{B}' is encrypted"):
        unpack(data, declare("rar"), tmp_path)


HUGE = b"\xff" * 8 + b"\x7f"  # 2 ** 63 - 1 as a number of version 5


@pytest.mark.parametrize(
    "tail",
    [
        b"\0\0\0\0" + HUGE,  # length of the header
        b"\0\0\0\0" + bytes([12]) + b"\x03\x02" + HUGE,  # length of the data
        b"\0\0\0\0" + bytes([16]) + b"\x02\0\0\0\0\0\0" + HUGE,  # length of a name
    ],
)
def test_headers_of_a_damaged_rar5_end_where_it_is_damaged(tmp_path, tail):
    (tmp_path / "x.rar").write_bytes(make_rar5({A: b"1"}) + tail)
    assert [header.name for header in rar_headers(tmp_path / "x.rar")][:1] == [A]


def test_headers_of_a_rar4_with_an_endless_member(tmp_path):
    data = bytearray(make_rar({A: b"1" * 50, B: b"2"}, **{A: {"flags": 0x100}}))
    start = data.index(A.encode())
    data[start : start + 4] = b"\xff" * 4  # the upper half of the member's size
    (tmp_path / "x.rar").write_bytes(data)
    assert len(list(rar_headers(tmp_path / "x.rar"))) == 1


REAL_TOOLS = ("bsdtar", "7z", "7zz", "unrar")


def only(tool, monkeypatch):
    """Let the installed tool be the only one that is found; skip where it is not installed or cannot do the work."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed")
    if tool == "unrar" and "unrar-free" in Path(found).resolve().name:
        pytest.skip("this unrar is unrar-free, which is refused")
    monkeypatch.setattr("ltpa.archives.rar.shutil.which", lambda name: found if name == tool else None)


@pytest.mark.parametrize("make", [make_rar, make_rar5])
@pytest.mark.parametrize("tool", REAL_TOOLS)
def test_rar_of_both_versions_with_a_real_tool(tool, make, tmp_path, monkeypatch):
    only(tool, monkeypatch)
    assert tree(unpack(make(CONTENT), declare("rar"), tmp_path)) == {name: CONTENT[name] for name in WANTED}
    flipped = bytearray(make(CONTENT))
    flipped[len(flipped) // 2] ^= 1
    for number, data in enumerate((make(CONTENT)[:3000], bytes(flipped))):
        root = tmp_path / str(number)
        root.mkdir()
        with pytest.raises(DataError):
            unpack(data, declare("rar"), root)
        assert names(root) == ["in", "x.rar"]


def test_unrar_free_is_refused_with_a_remedy(tmp_path, monkeypatch):
    stand_in(tmp_path / "bin", monkeypatch, "unrar", r"print('\nunrar-free 0.1.3  Copyright\n\n\nRAR archive x.rar\n')")
    with pytest.raises(DataError, match=r"unrar is unrar-free.*install bsdtar"):
        unpack(make_rar(CONTENT), declare("rar"), tmp_path)


def test_hostile_rar_with_the_real_bsdtar(tmp_path, monkeypatch):
    only("bsdtar", monkeypatch)
    cases = [make_rar(content) for name, content in NAMES_HOSTILE.items() if "backslash" not in name]
    cases.append(make_rar({A: b"1", B: b"/etc"}, **{B: {"attributes": 0o120777}}))
    cases.append(make_rar({A: b"1", B: b"2"}, **{B: {"flags": 0x4}}))
    for number, data in enumerate(cases):
        root = tmp_path / str(number)
        root.mkdir()
        with pytest.raises(DataError):
            unpack(data, declare("rar"), root)
        assert names(root) == ["in", "x.rar"]


@pytest.mark.skipif(shutil.which("7z") is None, reason="7-Zip is not installed")
def test_lists_of_the_real_7z(tmp_path, monkeypatch):
    """7-Zip answers in one form for every format, so a zip file shows how a RAR file would be read."""
    monkeypatch.setenv("PATH", str(Path(shutil.which("7z")).parent))
    real = shutil.which
    monkeypatch.setattr("ltpa.archives.rar.shutil.which", lambda tool: None if tool == "bsdtar" else real(tool))
    assert tree(unpack(make_zip(CONTENT), declare("rar"), tmp_path)) == {name: CONTENT[name] for name in WANTED}
    for number, name in enumerate(("symbolic link", "encrypted")):
        root = tmp_path / str(number)
        root.mkdir()
        with pytest.raises(DataError, match=r"x\.rar: member"):
            unpack(ZIP_HOSTILE[name], declare("rar"), root)
