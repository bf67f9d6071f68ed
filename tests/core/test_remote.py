"""Sources behind URLs: real servers on loopback, and what is said when they cannot be read."""

import importlib.util
import pickle
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from oasis_core import remote
from oasis_core.cli import main
from oasis_core.digests import file_fingerprint
from oasis_core.remote import RemoteFile, as_source, is_url
from oasis_core.video import TimeWindow, VideoError, list_images, open_source, probe

pytest.importorskip("fsspec", reason="needs the extra `cluster`")
needs_http = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp") is None, reason="needs fsspec[http]"
)


def load_server():
    spec = importlib.util.spec_from_file_location(
        "file_server", Path(__file__).with_name("file_server.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FileServer


FileServer = load_server()


def write_film(path, num_frames=60, size=(64, 48)):
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=Fraction(25))
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.options = {"g": "12", "crf": "10"}
        for _ in range(num_frames):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
    return path


@pytest.fixture
def film(tmp_path):
    (tmp_path / "served").mkdir()
    return write_film(tmp_path / "served" / "film.mp4")


@pytest.fixture
def server(film):
    with FileServer(film.parent) as server:
        yield server


def frames_of(source, window=None):
    with open_source(source, window=window) as reader:
        return [(frame.pts, frame.duration, frame.pixels) for frame in reader]


def assert_same_frames(found, expected):
    assert [frame[:2] for frame in found] == [frame[:2] for frame in expected]
    assert all(np.array_equal(a[2], b[2]) for a, b in zip(found, expected, strict=True))


def test_urls_are_told_from_paths_and_keep_their_secrets(tmp_path):
    assert not any(map(is_url, ["film.mkv", "/a/b.mp4", r"C:\films\a.mp4", "s3:/b", tmp_path]))
    assert as_source("file:///a/b.mp4") == Path("/a/b.mp4")
    assert as_source("file://localhost/a/b.mp4") == Path("/a/b.mp4")
    named = tmp_path / "a film, 100 %.mp4"
    assert as_source(named.as_uri()) == named
    assert as_source("a/b.mp4") == Path("a/b.mp4")
    file = as_source("https://me:secret@host/in/a%20film.mkv?X-Signature=secret")
    assert (file.name, file.stem, file.suffix) == ("a film.mkv", "a film", ".mkv")
    assert "secret" not in f"{file} {file!r}"
    assert pickle.loads(pickle.dumps(file)) == file
    assert list_images(file) is None


@needs_http
def test_a_film_behind_http_has_the_frames_of_the_file(server, film):
    url = as_source(f"{server.url}/film.mp4")
    assert_same_frames(frames_of(url), frames_of(film))
    window = TimeWindow(start_s=1.8, duration_s=0.2, context_frames=2)
    assert_same_frames(frames_of(url, window), frames_of(film, window))
    assert probe(url).duration_s == probe(film).duration_s
    assert file_fingerprint(url)["size"] == film.stat().st_size


@needs_http
def test_a_piece_is_read_without_the_rest(server, film, monkeypatch):
    monkeypatch.setattr(remote, "BLOCK_BYTES", 1 << 14)
    long = write_film(film.parent / "long.mp4", num_frames=250)
    frames_of(as_source(f"{server.url}/long.mp4"), TimeWindow(start_s=6.0, duration_s=0.2))
    fetched = sum(last + 1 - first for first, last in server.requests)
    assert 0 < fetched < 0.5 * long.stat().st_size


@needs_http
def test_a_server_that_stumbles_is_asked_again(server, film, monkeypatch):
    monkeypatch.setattr(remote, "BLOCK_BYTES", 1 << 15)
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    server.failing = {2, 3, 6}
    assert_same_frames(frames_of(as_source(f"{server.url}/film.mp4")), frames_of(film))
    assert len(server.requests) > 6
    server.failing = set(range(1, 1000))
    with pytest.raises(VideoError, match="cannot be read"):
        frames_of(as_source(f"{server.url}/film.mp4"))


@needs_http
def test_a_server_that_goes_away_is_not_called_damage(film, monkeypatch):
    monkeypatch.setattr(remote, "BLOCK_BYTES", 1 << 14)
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    with FileServer(film.parent) as server, open_source(f"{server.url}/film.mp4") as reader:
        frames = iter(reader)
        next(frames)
        server.shutdown()
        server.server_close()
        with pytest.raises(VideoError, match=r"film.mp4' cannot be read: Cannot connect") as raised:
            list(frames)
    assert "repair" not in str(raised.value)


@needs_http
def test_no_sentence_and_no_log_quotes_what_a_url_hides(server, film, capsys, caplog, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.01)
    host = server.url.replace("://", "://me:hidden@")
    # aiohttp quotes `%2F` as `/` in its own words.
    query = "X-Signature=hidden%2Fhidden"
    assert main(["--verbose", "info", f"{host}/other.mp4?{query}"]) == 1
    assert main(["--verbose", "info", f"{host}/film.mp4?{query}"]) == 0
    server.failing = set(range(1, 100))
    assert main(["--verbose", "info", f"{host}/film.mp4?{query}"]) == 1
    with pytest.raises(SystemExit):
        main(["upscale", str(film), f"{host}/out.mp4?{query}"])
    captured = capsys.readouterr()
    said = captured.out + captured.err + caplog.text
    assert "h264" in said
    assert "503" in said
    assert "hidden" not in said


@needs_http
def test_a_playlist_from_a_server_does_not_reach_files_here(server, film, tmp_path):
    lines = ("#EXTM3U", "#EXT-X-TARGETDURATION:3", "#EXTINF:2.4,", "{film}", "#EXT-X-ENDLIST")
    segment = tmp_path / "own.ts"
    with av.open(str(film)) as source, av.open(str(segment), "w") as output:
        copy = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    playlist = "\n".join(lines).format(film=segment.as_uri())
    (film.parent / "list.m3u8").write_text(playlist)
    with pytest.raises(VideoError, match="is not a video that FFmpeg can read"):
        frames_of(as_source(f"{server.url}/list.m3u8"))


@needs_http
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("{url}/other.mp4", "does not exist or needs other rights"),
        ("{url}/empty.mp4", r"is empty \(0 bytes\)"),
        ("{url}/cut.mp4", "is truncated"),
        ("{url}/text.mp4", "is not a video that FFmpeg can read"),
        ("{url}/picture.png", "pictures must be files on a disk"),
        ("http://127.0.0.1:9/film.mp4", "does not exist or needs other rights"),
        ("nonsense://bucket/film.mp4", "Protocol not known: nonsense"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(server, film, address, message):
    (film.parent / "empty.mp4").write_bytes(b"")
    (film.parent / "cut.mp4").write_bytes(film.read_bytes()[:-2000])
    (film.parent / "text.mp4").write_text("no film" * 100)
    with pytest.raises(VideoError, match=message):
        frames_of(as_source(address.format(url=server.url)))


@needs_http
def test_a_server_without_ranges_is_refused(film):
    with (
        FileServer(film.parent, has_ranges=False) as server,
        pytest.raises(VideoError, match=r"cannot begin in the middle .* download it first"),
    ):
        frames_of(as_source(f"{server.url}/film.mp4"))


def test_a_film_in_the_memory_file_system_is_read(film):
    import fsspec

    fsspec.filesystem("memory").pipe("/films/film.mp4", film.read_bytes())
    assert_same_frames(frames_of(as_source("memory://films/film.mp4")), frames_of(film))
    (found,) = as_source("memory://films/*.mp4").matches()
    assert found.name == "film.mp4"


def test_without_fsspec_or_the_protocols_package_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(OSError, match="s3fs"):
        RemoteFile("s3://bucket/film.mp4").open()
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(OSError, match=r"pip install 'oasis-video-upscaler\[url\]'"):
        RemoteFile("https://host/film.mp4").open()


@needs_http
@pytest.mark.parametrize(
    "words",
    [
        ("degrade", "{url}", "{folder}/low.mp4", "--preset", "light", "--scale", "2"),
        ("evaluate", "{url}", "--frames", "1", "--degradation", "light", "--metrics", "psnr_db"),
        ("calibrate", "{url}", "--frames", "1", "--crop", "32", "--queries", "4"),
    ],
)
def test_every_command_that_reads_a_film_reads_urls(server, tmp_path, words):
    names = {"url": f"{server.url}/film.mp4", "folder": tmp_path}
    assert main([word.format(**names) for word in words]) == 0
    missing = names | {"url": f"{server.url}/none.mp4"}
    assert main([word.format(**missing) for word in words]) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("degrade", "in.mp4", "http://h/out.mp4"),
        ("evaluate", "in.mp4", "--out", "http://h/out"),
        ("evaluate", "--truth", "http://h/in"),
        ("calibrate", "in.mp4", "--out", "http://h/out.json"),
        ("compare", "in.mp4", "http://h/out.mp4", "both.mp4"),
    ],
)
def test_what_must_be_on_a_disk_is_refused_behind_a_url(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    error = capsys.readouterr().err.splitlines()[0]
    assert "got 'http://h/" in error
    assert "download it first" in error or "results are written to a folder" in error


def test_results_are_not_written_to_urls(film, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["upscale", str(film), "s3://bucket/out.mkv"])
    assert stopped.value.code == 2
    with pytest.raises(SystemExit):
        main(["compare", str(film), str(film), "s3://bucket/out.mkv"])
    said = capsys.readouterr().err
    assert said.count("results are written to a folder, got 's3://bucket/out.mkv'") == 2


@pytest.fixture
def bucket(monkeypatch):
    """An S3 bucket of a real server on loopback."""
    server = pytest.importorskip("moto.server", reason="needs the extra `test-cloud`")
    pytest.importorskip("s3fs", reason="needs the extra `test-cloud`")
    import fsspec

    service = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    host, port = service.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("films")
    yield "s3://films"
    service.stop()
    type(fsspec.filesystem("s3")).clear_instance_cache()


def test_films_in_a_bucket_are_found_and_read(bucket, film, tmp_path, capsys):
    import fsspec

    store = fsspec.filesystem("s3")
    for name in ("b.mp4", "a.mp4"):
        store.put(str(film), f"films/in/{name}")
    assert_same_frames(frames_of(as_source(f"{bucket}/in/a.mp4")), frames_of(film))
    assert file_fingerprint(as_source(f"{bucket}/in/a.mp4"))["version"]
    found = as_source(f"{bucket}/in/*.mp4").matches()
    assert [str(file) for file in found] == [f"{bucket}/in/a.mp4", f"{bucket}/in/b.mp4"]
    with pytest.raises(VideoError, match="does not exist"):
        probe(as_source(f"{bucket}/in/c.mp4"))
    assert main(["info", f"{bucket}/in/a.mp4"]) == 0
    assert "h264" in capsys.readouterr().out
