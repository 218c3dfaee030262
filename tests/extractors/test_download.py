"""Downloads from a server on this machine that truncates, stalls, corrupts, refuses and comes back."""

import hashlib
import http.server
import threading

import pytest

from featx.errors import WeightsError
from featx.extractors import download as module
from featx.extractors.download import download

CONTENT = bytes(range(256)) * 12_000  # 3 MB: more than one piece
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.0)


@pytest.fixture
def silent_after(monkeypatch):
    """Give up on a server that is silent for so long; only where one is, for a machine may pause as well."""
    return lambda seconds: monkeypatch.setattr(module, "_SILENT_SECONDS", seconds)


@pytest.fixture
def served():
    """Serve one answer after another, the last of them for ever; gives the address and the list of what was asked."""
    release = threading.Event()
    answers, asked = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers[min(len(asked), len(answers) - 1)]
            asked.append(answer)
            if isinstance(answer, int):
                self.send_error(answer)
                return
            self.send_response(200)
            if answer != "without a length":
                self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            match answer:
                case "cut":
                    self.wfile.write(CONTENT[:2_000_000])
                case "corrupt":
                    self.wfile.write(CONTENT[:-1] + b"\x00")
                case "silent":
                    self.wfile.write(CONTENT[:10])
                    release.wait(20)
                case _:
                    self.wfile.write(CONTENT)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def serve(*given):
        answers[:] = given
        return f"http://127.0.0.1:{server.server_port}/weights.pth", asked

    yield serve
    release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("answer", ["whole", "without a length"])
def test_a_file_arrives_whole_in_a_folder_that_is_made_and_readable_by_others(served, tmp_path, answer):
    url, asked = served(answer)
    path = tmp_path / "new/checkpoints/weights.pth"
    told = []
    download(url, path, sha256=DIGEST[:8], progress=lambda *one: told.append(one))
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode == (tmp_path / "new").stat().st_mode & 0o666 | 0o100000
    assert [file.name for file in path.parent.iterdir()] == ["weights.pth"]
    assert len(asked) == 1
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (len(CONTENT), len(CONTENT) if answer == "whole" else 0)
    assert len(told) >= 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("cut", "it broke off after 2000000 of 3072000 bytes"),
        ("corrupt", f"expected a SHA-256 that begins {DIGEST[:8]}, got "),
        ("silent", "the server was silent for 0.5 s"),
        (503, "the server answered 503 Service Unavailable"),
    ],
)
def test_what_may_pass_is_tried_three_times_and_then_said_and_nothing_stays(
    served, silent_after, tmp_path, answer, reason
):
    if answer == "silent":
        silent_after(0.5)
    url, asked = served(answer)
    with pytest.raises(WeightsError, match=f"^{reason}.*, at attempt 3 of 3$"):
        download(url, tmp_path / "weights.pth", sha256=DIGEST[:8])
    assert len(asked) == 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("answer", ["cut", "corrupt", "silent", 503])
def test_a_second_attempt_may_succeed(served, silent_after, tmp_path, answer):
    if answer == "silent":
        silent_after(3.0)
    url, asked = served(answer, "whole")
    download(url, tmp_path / "weights.pth", sha256=DIGEST)
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    assert len(asked) == 2


def test_what_a_server_refuses_is_not_asked_for_again(served, tmp_path):
    url, asked = served(404)
    with pytest.raises(WeightsError, match="the server answered 404 Not Found, at attempt 1 of 3"):
        download(url, tmp_path / "weights.pth", sha256="")
    assert len(asked) == 1


def test_a_closed_network_is_said_in_a_few_words(tmp_path):
    with pytest.raises(WeightsError, match=r"Connection refused, at attempt 3 of 3$"):
        download("http://127.0.0.1:9/weights.pth", tmp_path / "weights.pth", sha256="")


def test_a_folder_that_cannot_be_made_is_not_tried_again(served, tmp_path):
    url, asked = served("whole")
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match=r"'.*file/checkpoints', at attempt 1 of 3"):
        download(url, tmp_path / "file/checkpoints/weights.pth", sha256="")
    assert not asked


def test_an_interrupted_download_leaves_nothing_and_no_file_of_before_is_touched(served, tmp_path):
    url, _ = served("whole")
    (tmp_path / "weights.pth").write_text("older")

    def interrupted(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(url, tmp_path / "weights.pth", sha256="", progress=interrupted)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["older"]
