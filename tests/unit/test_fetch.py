import hashlib
import json
import random
import shutil
import subprocess
import sys
import tarfile
import time
from collections import namedtuple

import pytest

from ltpa.archives.declare import Archive, parse_archives
from ltpa.archives.fetch import fetch
from ltpa.archives.progress import TransferProgress
from ltpa.archives.transfer import Policy
from ltpa.archives.trust import LOCK_FILE
from ltpa.core.errors import ConfigError, DataError, LtpaError
from tests.unit.archive_makers import MAKERS
from tests.unit.file_server import FileServer, fail, make_certificate, other_range, page, redirect, serve

BODY = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
PATH = "/a/data.mat"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def server(certificate):
    running = FileServer(certificate[1])
    yield running
    running.close()


@pytest.fixture
def plain_server():
    running = FileServer()
    yield running
    running.close()


@pytest.fixture
def policy(certificate):
    return Policy(attempts=3, pause=0.0, timeout=5.0, ca_file=certificate[0])


def declare(*urls, **keys):
    return Archive(name="data.mat", urls=list(urls), kind="file", **keys)


def only(folder):
    """Names in a folder, lock file of digests aside."""
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK_FILE)


def ranges(server):
    return [asked for _, asked, _, _ in server.log]


def test_downloads_verifies_and_leaves_nothing_else(server, policy, tmp_path):
    archive = declare(server.add(PATH, BODY), size=len(BODY), sha256=SHA256, md5=hashlib.md5(BODY).hexdigest())
    assert fetch([archive], tmp_path / "in", progress=False, policy=policy) == [tmp_path / "in" / "data.mat"]
    assert (tmp_path / "in" / "data.mat").read_bytes() == BODY
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["data.mat"]
    fetch([archive], tmp_path / "in", progress=False, policy=policy)
    assert len(server.log) == 1  # the second call found it


def test_busy_server_is_asked_again(server, policy, tmp_path, capsys):
    archive = declare(server.add(PATH, BODY, fail(503), fail(503)), sha256=SHA256)
    fetch([archive], tmp_path, policy=policy)
    assert [status for _, _, status, _ in server.log] == [503, 503, 200]
    assert "data.mat: HTTP 503 Service Unavailable; trying again" in capsys.readouterr().err


def test_pauses_double_and_heed_the_server(server, policy, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr("ltpa.archives.transfer.time.sleep", pauses.append)
    steps = [fail(503), fail(429, **{"Retry-After": "7"}), fail(500), fail(502)]
    archive = declare(server.add(PATH, BODY, *steps), sha256=SHA256)
    patient = Policy(attempts=5, pause=1.0, ca_file=policy.ca_file)
    fetch([archive], tmp_path, progress=False, policy=patient)
    assert pauses == [1.0, 7.0, 4.0, 8.0]


def test_gives_up_and_names_every_source(server, policy, tmp_path):
    archive = declare(server.add(PATH, BODY, *[fail(503)] * 3), server.add("/b", b"", fail(404)), sha256=SHA256)
    with pytest.raises(DataError, match=r"(?s)503 .*after 3 attempts; .*/b: HTTP 404.*--archives"):
        fetch([archive], tmp_path, progress=False, policy=policy)
    assert only(tmp_path) == []


def test_cut_transfer_goes_on_where_it_stopped(server, policy, tmp_path):
    archive = declare(server.add(PATH, BODY, serve(sent=1_000_000), serve(sent=500_000)), size=len(BODY))
    fetch([archive], tmp_path, progress=False, policy=policy)
    assert (tmp_path / "data.mat").read_bytes() == BODY
    assert sum(sent for *_, sent in server.log) == len(BODY)
    assert ranges(server) == [None, "bytes=1000000-", "bytes=1500000-"]


def test_part_survives_and_the_next_call_goes_on(server, policy, tmp_path):
    archive = declare(server.add(PATH, BODY, serve(sent=900_000), fail(404)), sha256=SHA256)
    with pytest.raises(DataError, match="404"):
        fetch([archive], tmp_path, progress=False, policy=policy)
    assert only(tmp_path) == ["data.mat.part", "data.mat.part.json"]
    fetch([archive], tmp_path, progress=False, policy=policy)
    assert ranges(server)[-1] == "bytes=900000-"
    assert only(tmp_path) == ["data.mat"]


def test_headway_starts_the_count_of_attempts_anew(server, policy, tmp_path):
    big = BODY * 3
    steps = [serve(sent=1_500_000)] * 5
    archive = declare(server.add(PATH, big, *steps), sha256=hashlib.sha256(big).hexdigest())
    fetch([archive], tmp_path, progress=False, policy=policy)  # five cuts, three attempts
    assert (tmp_path / "data.mat").read_bytes() == big


@pytest.mark.parametrize("keys", [{}, {"sha256": SHA256}])
def test_server_without_ranges_starts_again(server, policy, tmp_path, keys):
    archive = declare(server.add(PATH, BODY, serve(sent=1_000_000), serve(ranges=False)), **keys)
    fetch([archive], tmp_path, progress=False, policy=policy)
    assert (tmp_path / "data.mat").read_bytes() == BODY


@pytest.mark.parametrize("shift", [-10, 10])
@pytest.mark.parametrize("keys", [{}, {"sha256": SHA256}])
def test_wrong_piece_is_not_joined(server, policy, tmp_path, shift, keys):
    archive = declare(server.add(PATH, BODY, serve(sent=1_000_000), other_range(shift)), **keys)
    fetch([archive], tmp_path, progress=False, policy=policy)
    assert (tmp_path / "data.mat").read_bytes() == BODY


OLD = random.Random(1).randbytes(len(BODY))


@pytest.mark.parametrize(
    ("name", "first", "second", "keys"),
    [
        ("told by the tag", {"content": OLD}, {}, {}),
        ("tag not heeded, but seen", {"content": OLD}, {"heed_if_range": False}, {}),
        ("no tag, told by the checksum", {"content": OLD, "etag": False}, {"etag": False}, {"sha256": SHA256}),
        ("no tag, no checksum, so not resumed", {"content": OLD, "etag": False}, {"etag": False}, {}),
    ],
)
def test_change_between_attempts_is_never_joined(server, policy, tmp_path, name, first, second, keys):
    steps = [serve(sent=1_000_000, **first), *[serve(**second)] * 3]
    archive = declare(server.add(PATH, BODY, *steps), **keys)
    fetch([archive], tmp_path, progress=False, policy=policy)
    assert (tmp_path / "data.mat").read_bytes() == BODY


def test_mirror_goes_on_with_a_part_only_if_a_checksum_will_tell(server, policy, tmp_path):
    for keys, expected in (({"sha256": SHA256}, "bytes=1000000-"), ({}, None)):
        server.log.clear()
        steps = (serve(sent=1_000_000), fail(404))
        archive = declare(server.add("/one", BODY, *steps), server.add("/two", BODY), **keys)
        folder = tmp_path / str(expected)
        fetch([archive], folder, progress=False, policy=policy)
        assert [entry[:2] for entry in server.log][-1] == ("/two", expected)
        assert (folder / "data.mat").read_bytes() == BODY


def test_complete_part_of_unknown_size_is_recognised(server, policy, tmp_path):
    archive = declare(server.add(PATH, BODY), sha256=SHA256)
    (tmp_path / "data.mat.part").write_bytes(BODY)
    fetch([archive], tmp_path, progress=False, policy=policy)
    assert [status for _, _, status, _ in server.log] == [416]
    server.log.clear()
    (tmp_path / "data.mat").rename(tmp_path / "data.mat.part")
    fetch([archive.model_copy(update={"size": len(BODY)})], tmp_path, progress=False, policy=policy)
    assert server.log == []


@pytest.mark.parametrize(
    ("step", "keys", "message"),
    [
        (page(), {"sha256": SHA256}, "web page"),
        (page("application/octet-stream"), {"sha256": SHA256}, "web page"),
        (page("application/octet-stream"), {}, "web page"),
        (serve(content=BODY[:-1]), {"size": len(BODY)}, "offers 2,999,999 bytes, not the declared 3,000,000"),
        (serve(content=BODY + b"x"), {"size": len(BODY)}, "offers 3,000,001"),
        (serve(content=BODY + b"x", length=False), {"size": len(BODY)}, "more than the 3,000,000 bytes"),
        (serve(length=False), {}, "no length"),
        (serve(content=OLD), {"sha256": SHA256}, "SHA-256"),
        (serve(content=OLD), {"md5": hashlib.md5(BODY).hexdigest()}, "MD5"),
        (serve(content=b""), {}, "is empty"),
        (fail(403), {}, "HTTP 403"),
        (redirect("ftp://127.0.0.1/x"), {}, "redirects from https to ftp:"),
    ],
)
def test_wrong_answers_are_refused_and_the_mirror_is_asked(server, policy, tmp_path, step, keys, message, capsys):
    archive = declare(server.add("/one", BODY, step), server.add("/two", BODY), **keys)
    fetch([archive], tmp_path, policy=policy)
    assert (tmp_path / "data.mat").read_bytes() == BODY
    assert message in capsys.readouterr().err
    assert only(tmp_path) == ["data.mat"]
    alone = declare(server.add("/three", BODY, step), **keys)
    with pytest.raises(DataError, match="could not be downloaded"):
        fetch([alone], tmp_path / "alone", progress=False, policy=policy)
    assert only(tmp_path / "alone") == []


def test_cut_without_length_is_noticed(server, policy, tmp_path):
    steps = [serve(sent=1000, length=False, ranges=False)] * 3
    archive = declare(server.add(PATH, BODY, *steps), size=len(BODY))
    with pytest.raises(DataError, match="cut after 1,000 of 3,000,000"):
        fetch([archive], tmp_path, progress=False, policy=policy)


def test_silent_server_counts_as_a_failure(server, policy, tmp_path):
    def stall(handler, body):
        serve(sent=1_000_000)(handler, body)
        handler.wfile.flush()
        time.sleep(1.0)

    archive = declare(server.add(PATH, BODY, stall), sha256=SHA256)
    hasty = Policy(attempts=2, pause=0.0, timeout=0.3, ca_file=policy.ca_file)
    fetch([archive], tmp_path, progress=False, policy=hasty)
    assert ranges(server) == [None, "bytes=1000000-"]  # all that came is kept


def test_no_connection_points_to_archive_folders(server, policy, tmp_path):
    url = server.add(PATH, BODY)
    server.close()
    with pytest.raises(DataError, match=r"connection failed .*after 3 attempts\); .*name its folder with --archives"):
        fetch([declare(url)], tmp_path, progress=False, policy=policy)
    assert only(tmp_path) == []


def test_redirect_to_http_is_refused_whatever_is_allowed(server, plain_server, policy, tmp_path):
    away = plain_server.add(PATH, BODY)
    lenient = Policy(allow_http=True, pause=0.0, ca_file=policy.ca_file)
    for url in (away, away.removeprefix("http:").replace("//", "http://")):
        archive = declare(server.add(PATH, BODY, redirect(url)), sha256=SHA256)
        with pytest.raises(DataError, match="redirects from https to http://"):
            fetch([archive], tmp_path, progress=False, policy=lenient)
    assert plain_server.log == []


def test_redirect_within_https_is_followed(server, policy, tmp_path):
    server.add("/there", BODY)
    archive = declare(server.add(PATH, b"", redirect("/hop")), sha256=SHA256)
    server.add("/hop", b"", redirect(server.base + "/there"))
    fetch([archive], tmp_path, progress=False, policy=policy)
    assert [path for path, *_ in server.log] == [PATH, "/hop", "/there"]


def test_unknown_certificate_is_refused(server, tmp_path):
    archive = declare(server.add(PATH, BODY), sha256=SHA256)
    with pytest.raises(DataError, match="certificate is not trusted"):
        fetch([archive], tmp_path, progress=False, policy=Policy(pause=0.0))
    assert server.log == []


def test_http_needs_a_checksum_or_the_users_word(plain_server, tmp_path):
    url = plain_server.add(PATH, BODY)
    unknown = declare(url, insecure=True)
    with pytest.raises(DataError, match=r"not encrypted, and no checksum is known; --allow-http"):
        fetch([unknown], tmp_path, progress=False)
    assert plain_server.log == []
    fetch([declare(url, insecure=True, sha256=SHA256)], tmp_path / "hashed", progress=False)
    fetch([unknown], tmp_path / "allowed", progress=False, policy=Policy(allow_http=True))
    assert json.loads((tmp_path / "allowed" / LOCK_FILE).read_text())["sha256"] == {"data.mat": SHA256}
    (tmp_path / "allowed" / "data.mat").unlink()
    fetch([unknown], tmp_path / "allowed", progress=False)  # now its digest is known
    assert len(plain_server.log) == 3


def test_declaration_of_http_is_checked():
    with pytest.raises(ValueError, match="insecure"):
        declare("http://host/x")
    with pytest.raises(ValueError, match="insecure"):
        declare("https://host/x", insecure=True)
    with pytest.raises(ValueError, match="before"):
        declare("http://host/x", "https://host/x", insecure=True)
    with pytest.raises(ValueError, match="pattern"):
        declare("ftp://host/x")


def test_first_use_is_remembered_and_another_file_refused(server, policy, tmp_path):
    archive = declare(server.add(PATH, OLD))
    fetch([archive], tmp_path, progress=False, policy=policy)
    other = archive.model_copy(update={"name": "other.mat"})
    fetch([other], tmp_path, progress=False, policy=policy)
    (tmp_path / "data.mat").unlink()
    server.add(PATH, BODY)
    with pytest.raises(DataError, match=r"when first seen; .*delete its line in .*archives\.lock\.json"):
        fetch([archive], tmp_path, progress=False, policy=policy)
    assert only(tmp_path) == ["other.mat"]
    old = hashlib.sha256(OLD).hexdigest()
    assert json.loads((tmp_path / LOCK_FILE).read_text())["sha256"] == {"data.mat": old, "other.mat": old}


def test_damaged_lock_file_is_an_error_and_keeps_the_part(server, policy, tmp_path):
    (tmp_path / LOCK_FILE).write_text("{")
    archive = declare(server.add(PATH, BODY))
    with pytest.raises(DataError, match="not a lock file"):
        fetch([archive], tmp_path, progress=False, policy=policy)
    assert (tmp_path / "data.mat.part").read_bytes() == BODY


def test_own_folders_are_searched_first_and_checked(server, policy, tmp_path):
    archive = declare(server.add(PATH, BODY), sha256=SHA256)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    (second / "data.mat").write_bytes(BODY)
    found = fetch([archive], tmp_path / "in", search=[first, second], progress=False, policy=policy)
    assert found == [second / "data.mat"]
    assert server.log == []
    assert not (tmp_path / "in").exists()
    (first / "data.mat").write_bytes(OLD)
    with pytest.raises(DataError, match=r"first/data\.mat: has SHA-256 .*delete or replace this file"):
        fetch([archive], tmp_path / "in", search=[first, second], progress=False, policy=policy)
    with pytest.raises(DataError, match="third: no such folder"):
        fetch([archive], tmp_path / "in", search=[tmp_path / "third"], progress=False, policy=policy)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "rar"])
@pytest.mark.parametrize("length", [27, 2000])
def test_unhashed_archives_must_begin_like_what_they_are(tmp_path, kind, length):
    path = tmp_path / f"x.{kind}"
    path.write_bytes(b'{"error": "quota exceeded"}'.ljust(length))
    archive = Archive(name=path.name, urls=["https://h/x"], kind=kind, limit_files=1, limit_bytes=1, members=["*"])
    with pytest.raises(DataError, match=f"does not begin like a {kind} file"):
        fetch([archive], tmp_path, progress=False)
    assert not (tmp_path / LOCK_FILE).exists()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_unhashed_tar_files_of_every_format_are_taken(tmp_path, form):
    with tarfile.open(tmp_path / "x.tar", "w", format=form) as made:
        made.addfile(tarfile.TarInfo("ä" * 120 if form != tarfile.USTAR_FORMAT else "a"))
    archive = Archive(name="x.tar", urls=["https://h/x"], kind="tar", limit_files=1, limit_bytes=1, members=["*"])
    assert fetch([archive], tmp_path, progress=False) == [tmp_path / "x.tar"]


Usage = namedtuple("Usage", "total used free")


def test_full_disk_is_told_before_the_transfer(server, policy, tmp_path, monkeypatch):
    archive = declare(server.add(PATH, BODY, serve(sent=1_000_000)), sha256=SHA256)
    free = iter([10**9, 5])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, next(free)))
    with pytest.raises(DataError, match="needs 2,000,000 bytes more and 5 are free"):
        fetch([archive], tmp_path, progress=False, policy=policy)


def test_full_disk_during_the_transfer(server, policy, tmp_path):
    archive = declare(server.add(PATH, BODY), sha256=SHA256, size=len(BODY))
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n" + FETCHER
    )
    done = subprocess.run(fetcher(script, archive, tmp_path, policy), capture_output=True, text=True)
    assert "DataError" in done.stderr
    assert "disk full; 2,000,000 bytes of data.mat are missing; free space" in done.stderr
    fetch([archive], tmp_path, progress=False, policy=policy)
    assert ranges(server) == [None, "bytes=1000000-"]


def test_unwritable_folder_is_one_error(server, policy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LtpaError, match="cannot write here"):
        fetch([declare(server.add(PATH, BODY))], tmp_path / "file" / "in", progress=False, policy=policy)


FETCHER = """
import sys
from pathlib import Path
from ltpa.archives.declare import Archive
from ltpa.archives.fetch import fetch
from ltpa.archives.transfer import Policy
archive = Archive.model_validate_json(sys.argv[1])
fetch([archive], Path(sys.argv[2]), policy=Policy(pause=0.0, ca_file=Path(sys.argv[3])))
"""


def fetcher(script, archive, folder, policy):
    return [sys.executable, "-c", script, archive.model_dump_json(), str(folder), str(policy.ca_file)]


def test_eight_processes_make_one_transfer(server, policy, tmp_path):
    archive = declare(server.add(PATH, BODY, serve(pause=1.5)))
    started = [
        subprocess.Popen(fetcher(FETCHER, archive, tmp_path, policy), stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    said = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 8
    assert [entry[2:] for entry in server.log] == [(200, len(BODY))]
    assert any("waiting for another process" in text for text in said)
    assert only(tmp_path) == ["data.mat"]


def test_killed_holder_frees_the_way_and_its_bytes_are_used(server, policy, tmp_path):
    def stall(handler, body):
        serve(sent=1_000_000)(handler, body)
        time.sleep(3)

    archive = declare(server.add(PATH, BODY, stall), sha256=SHA256)
    process = subprocess.Popen(fetcher(FETCHER, archive, tmp_path, policy))
    part = tmp_path / "data.mat.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size >= 500_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    held = part.stat().st_size
    fetch([archive], tmp_path, progress=False, policy=policy)
    assert ranges(server) == [None, f"bytes={held}-"]
    assert only(tmp_path) == ["data.mat"]


@pytest.mark.parametrize("kind", [*MAKERS, "mat"])
def test_every_truncation_and_bit_flip_is_refused(kind, tmp_path):
    content = {f"top/{i}.bin": random.Random(i).randbytes(300) for i in range(5)}
    data = MAKERS[kind](content) if kind in MAKERS else b"MATLAB 5.0 MAT-file" + b"".join(content.values())
    keys = {"limit_files": 9, "limit_bytes": 9999, "members": ["*"]} if kind != "mat" else {}
    rng = random.Random(7)
    damaged = [data[: rng.randrange(len(data))] for _ in range(100)]
    for _ in range(100):
        position = rng.randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        damaged.append(bytes(flipped))
    digest = "md5" if kind == "tar" else "sha256"
    declared = {digest: hashlib.new(digest, data).hexdigest()}
    archive = Archive(name="x", urls=["https://localhost/x"], kind=kind, **declared, **keys)
    (tmp_path / "x").write_bytes(data)
    assert fetch([archive], tmp_path, progress=False) == [tmp_path / "x"]
    for wrong in damaged:
        (tmp_path / "x").write_bytes(wrong)
        with pytest.raises(DataError, match=r"x: (has|is|does)"):
            fetch([archive], tmp_path, progress=False)


def test_progress_lines_tell_rate_and_time_left(capsys, monkeypatch):
    clock = iter([100.0, 102.0, 110.0, 110.0, 110.0, 121.0, 121.0, 121.0])
    monkeypatch.setattr("ltpa.archives.progress.time.monotonic", lambda: next(clock))
    show = TransferProgress("x.tar")
    show.begin(1_000_000, 21_000_000)
    show.advance(1_000_000)
    show.advance(9_000_000)
    show.advance(1_000_000)
    show.end()
    assert capsys.readouterr().err.splitlines() == [
        "x.tar: 11.0 of 21.0 MB (52 %), 1.0 MB/s, 10 s left",
        "x.tar: 12.0 of 21.0 MB (57 %), 0.5 MB/s, 17 s left",
    ]


def test_progress_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    show = TransferProgress("x.tar")
    show.begin(0, 1000)
    show.advance(1000)
    show.note("said between")
    show.end()
    said = capsys.readouterr().err
    assert "x.tar: 100%" in said
    assert "1.00k/1.00k" in said
    assert "x.tar: said between" in said


ENTRY = {"name": "a.zip", "urls": ["https://h/a"], "kind": "zip", "limit_files": 1, "limit_bytes": 1, "members": ["*"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha": "0"}, "key 'sha'"),
        ({"sha256": "ab"}, "key 'sha256'"),
        ({"urls": []}, "key 'urls'"),
        ({"urls": ["https://"]}, r"key 'urls\.0'"),
        ({"kind": "7z"}, "key 'kind'"),
        ({"size": 0}, "key 'size'"),
        ({"name": "../a"}, "key 'name'"),
        ({"name": ".hidden"}, "key 'name'"),
        ({"members": None}, "needs limit_files, limit_bytes and members"),
        ({"kind": "mat", "nested": ["x"]}, "plain file"),
    ],
)
def test_wrong_declarations_are_one_clear_error(change, message):
    assert parse_archives("toy", {"archives": [ENTRY]}) == [Archive.model_validate(ENTRY)]
    with pytest.raises(ConfigError, match=rf"toy, archive .*{message}") as caught:
        parse_archives("toy", {"archives": [{**ENTRY, **change}]})
    assert "\n" not in str(caught.value)


def test_archive_names_are_unique():
    with pytest.raises(ConfigError, match=r"declares archive a\.zip twice"):
        parse_archives("toy", {"archives": [ENTRY, ENTRY]})


MANY = "9" * 5000


def malformed(status=200, reason="OK", **headers):
    """Answer with a head that says something impossible, then the file."""

    def step(handler, body):
        lines = [
            f"HTTP/1.1 {status} {reason}",
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        ]
        handler.wfile.write("\r\n".join([*lines, "", ""]).encode("latin1") + body)

    return step


@pytest.mark.parametrize(
    "answer",
    [
        redirect("https://[broken"),
        redirect("https://" + "a" * 70 + ".invalid/x"),
        redirect("https://127.0.0.1:99999/x"),
        redirect("https://\xff\xfe/x"),
        malformed(302, "Found", Location="https://.../x", Content_Length=MANY),
        malformed(404, "No\x1b[31m", Content_Length=MANY),
        malformed(503, "Busy", Retry_After=MANY, Content_Length="0"),
        malformed(206, "Part", Content_Range=f"bytes {MANY}-{MANY}/{MANY}"),
        malformed("2OO"),
        lambda handler, body: handler.wfile.write(b"\x00\xff\r\n\r\n"),
    ],
)
def test_whatever_a_server_answers_the_next_url_is_tried(server, policy, tmp_path, answer, capsys):
    archive = declare(server.add("/bad", BODY, *[answer] * 3), server.add(PATH, BODY), sha256=SHA256)
    fetch([archive], tmp_path, policy=policy)
    assert (tmp_path / "data.mat").read_bytes() == BODY
    shown = capsys.readouterr().err
    assert f"{server.base}/bad: " in shown and "\x1b" not in shown


def test_a_length_of_5000_digits_is_no_length(server, policy, tmp_path):
    archive = declare(server.add(PATH, BODY, malformed(Content_Length=MANY)), sha256=SHA256)
    fetch([archive], tmp_path, progress=False, policy=policy)
    assert (tmp_path / "data.mat").read_bytes() == BODY


def test_the_body_of_a_redirect_is_not_read(server, policy, tmp_path):
    target = server.add(PATH, BODY)

    def endless(handler, _):
        handler.wfile.write(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n".encode())
        handler.wfile.write(bytes(1000))
        time.sleep(3)  # longer than the whole transfer may take

    archive = declare(server.add("/old", b"", endless), sha256=SHA256)
    begun = time.monotonic()
    fetch([archive], tmp_path, progress=False, policy=policy)
    assert time.monotonic() - begun < 3


def test_a_drip_is_ended_and_what_came_is_kept(server, policy, tmp_path):
    sent = []

    def drip(handler, body):
        serve(sent=1000)(handler, body)
        for place in range(1000, 1200):
            handler.wfile.write(body[place : place + 1])
            sent.append(place)
            time.sleep(0.02)

    archive = declare(server.add(PATH, BODY, drip, drip), sha256=SHA256)
    strict = Policy(attempts=1, pause=0.0, timeout=5.0, least_rate=1000.0, window=0.5, ca_file=policy.ca_file)
    with pytest.raises(DataError, match=r"too slow: .* bytes a second over"):
        fetch([archive], tmp_path, progress=False, policy=strict)
    kept = (tmp_path / "data.mat.part").read_bytes()
    assert 1000 < len(kept) < 1200 and BODY.startswith(kept)
    fetch([archive], tmp_path, progress=False, policy=Policy(least_rate=0.0, pause=0.0, ca_file=policy.ca_file))
    assert ranges(server)[1] == f"bytes={len(kept)}-"
