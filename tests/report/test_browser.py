"""What a real browser makes of the page: it shows the run's numbers, says nothing, and asks for nothing."""

import http.server
import json
import re
import threading

import pytest

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</title></style></script><svg onload=alert(3)>",
    "' autofocus onfocus='alert(4)",
    "\udcff\u202e\n\x1b]0;x\x07",
    "x" * 2000,
]

CONTRAST = """
(() => {
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const read = (text) => { const v = text.match(/[\\d.]+/g).map(Number); return [v.slice(0, 3), v[3] ?? 1]; };
  const behind = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement)
      layers.unshift(read(getComputedStyle(one).backgroundColor));
    const white = [255, 255, 255];
    return layers.reduce((under, [over, alpha]) => under.map((v, i) => v * (1 - alpha) + over[i] * alpha), white);
  };
  const weak = [];
  for (const element of document.querySelectorAll("main *, header *, footer *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const drawn = element instanceof SVGElement;
    const [colour] = read(drawn ? style.fill : style.color);
    const html = drawn ? element.closest("figure, th, td") : element;
    const [a, b] = [luminance(colour), luminance(behind(html))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) weak.push([element.outerHTML.slice(0, 80), (a + 0.05) / (b + 0.05)]);
  }
  return weak;
})()
"""


@pytest.fixture
def server():
    """Serve nothing on a port of this machine; return its address, and what was asked of it."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words):
            pass

    # The browser keeps idle connections open: each has a thread, which nobody waits for.
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads, running.block_on_close = True, False
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()


def asked_for(chromium):
    return [address for address in chromium.requests if not address.startswith("data:")]


@pytest.mark.parametrize("kind", ["results", "few_shot_results", "regression"])
@pytest.mark.parametrize("javascript", [True, False], ids=["script", "no script"])
def test_a_page_loads_in_silence_and_asks_for_nothing(chromium, written, request, kind, javascript):
    page = written(request.getfixturevalue(kind))
    chromium.open(page, javascript=javascript)
    chromium.move(640, 400)
    chromium.settle()
    assert chromium.messages == []
    assert asked_for(chromium) == [page.as_uri()]
    assert chromium.script("document.querySelector('h1').innerText.length") > 20


def test_a_page_that_does_ask_for_something_would_be_seen(chromium, tmp_path, server):
    """The test of the test above."""
    address, asked = server
    (tmp_path / "page.html").write_text(f"<img src='{address}/a'><script>console.log('x')</script>")
    chromium.open(tmp_path / "page.html")
    assert asked == ["/a"]
    assert f"{address}/a" in chromium.requests
    assert any(message.startswith("console: ['x']") for message in chromium.messages)


def test_even_what_were_smuggled_in_could_neither_run_nor_call_home(chromium, written, results, server):
    address, asked = server
    page = written(results)
    smuggled = (
        f"<img src='{address}/image'><link rel=stylesheet href='{address}/style'>"
        f"<iframe src='{address}/frame'></iframe>"
        f"<script src='{address}/script'></script><script>document.title = 'run'</script>"
        f"<style>main {{ background: url({address}/background) }}</style>"
        f"<form action='{address}/form'><button>x</button></form><base href='{address}/'>"
        "<p onclick=\"document.title = 'run'\" id=clicked>x</p>"
    )
    page.write_text(page.read_text().replace("</main>", f"{smuggled}</main>"))
    chromium.open(page)
    chromium.script("document.getElementById('clicked').click(); document.querySelector('form').submit()")
    chromium.settle(0.5)
    assert asked == []
    assert "run" not in chromium.script("document.title").split()
    assert any("Content Security Policy" in message for message in chromium.messages)


def test_what_is_seen_is_what_the_run_found(chromium, written, results):
    chromium.open(written(results))
    rows = chromium.script(
        "[...document.querySelectorAll('[data-contender]')].map(row => ({...row.dataset, text: row.innerText}))"
    )
    expected = [*results["results"][1:], results["results"][0]]
    for row, one in zip(rows, expected, strict=True):
        scores = one["metrics"]["accuracy"]
        assert float(row["mean"]) == scores["mean"]
        assert f"{scores['mean']:.3f}" in row["text"]
        assert one["verdict"] in row["text"]
    cells = chromium.script("[...document.querySelectorAll('[data-true]')].map(cell => +cell.innerText)")
    assert cells == [count for row in results["best_details"]["confusion"] for count in row]
    shown = chromium.script(
        "[...document.querySelectorAll('[data-class]')].map(row => [...row.cells].map(cell => cell.innerText))"
    )
    assert shown == [
        [one["class"], *(f"{one[name]:.3f}" for name in ("precision", "recall", "f1")), str(one["support"])]
        for one in results["best_details"]["per_class"]
    ]
    # The intervals are where the axis says: from the marks' own boxes.
    spans = chromium.script(
        """[...document.querySelectorAll('#leaderboard tbody .span')].map(line => {
             const frame = line.closest('svg').getBoundingClientRect(), box = line.getBoundingClientRect();
             return [(box.left - frame.left) / frame.width, (box.right - frame.left) / frame.width]; })"""
    )
    ticks = chromium.script(
        """[...document.querySelectorAll('#leaderboard .scale text')].map(
             text => [+text.textContent, parseFloat(text.getAttribute('x')) / 100])"""
    )
    (low, at_low), (high, at_high) = ticks[0], ticks[-1]
    intervals = [one["metrics"]["accuracy"]["ci95"] for one in expected]
    inside = [
        [at_low + (min(1.0, max(0.0, end)) - low) / (high - low) * (at_high - at_low) for end in interval]
        for interval in intervals
        if interval[1] >= low
    ]
    for (left, right), (expected_left, expected_right) in zip(spans, inside, strict=False):
        assert left == pytest.approx(max(0, expected_left), abs=0.02)
        assert right == pytest.approx(min(1, expected_right), abs=0.02)


def test_pictures_are_drawn(chromium, written, results):
    chromium.open(written(results))
    drawn = chromium.script(
        """Promise.all([...document.querySelectorAll('image')].map(one => new Promise(done => {
             const image = new Image(); image.onload = () => done(image.width); image.onerror = () => done(0);
             image.src = one.getAttribute('href'); })))"""
    )
    assert len(drawn) == len(results["inspection"]["samples"])
    assert min(drawn) > 0
    boxes = chromium.script(
        """[...document.querySelectorAll('.picture use')].map(one => {
             const box = one.getBoundingClientRect(); return [box.width, box.height]; })"""
    )
    assert boxes
    assert min(min(box) for box in boxes) > 20


POINT = """(() => {
  const point = document.querySelector('#map [data-point]');
  point.scrollIntoView({block: 'center', behavior: 'instant'});
  const box = point.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2, point.dataset.point];
})()"""
CARD = """(() => {
  const card = document.getElementById('card');
  return [card.hidden, card.innerText, card.querySelector('use').getAttribute('href')];
})()"""


def test_pointing_at_the_map_shows_the_picture_and_its_name(chromium, written, results):
    chromium.open(written(results))
    assert chromium.script(CARD)[0]
    x, y, _ = chromium.script(POINT)
    chromium.settle()
    chromium.move(x, y)
    chromium.settle()
    hidden, text, target = chromium.script(CARD)
    assert not hidden
    row = target.removeprefix("#s")
    assert results["inspection"]["samples"][row]["id"] in text
    left, right = chromium.script(
        "(() => { const b = document.getElementById('card').getBoundingClientRect(); return [b.left, b.right] })()"
    )
    assert left >= 0
    assert right <= 1280
    chromium.move(5, 5)
    chromium.settle()
    assert chromium.script(CARD)[0]


def test_without_javascript_the_points_have_tooltips(chromium, written, results):
    chromium.open(written(results), javascript=False)
    titles = chromium.script(
        "[...document.querySelectorAll('#map [data-point] title')].map(t => t.textContent)"
    )
    assert len(titles) == len(results["inspection"]["map"]["rows"])
    assert chromium.script("document.querySelector('#map use').getBoundingClientRect().width") > 5


@pytest.mark.parametrize("kind", ["results", "few_shot_results", "regression"])
@pytest.mark.parametrize("width", [390, 800, 1280])
def test_nothing_is_wider_than_the_window(chromium, written, request, kind, width):
    results = request.getfixturevalue(kind)
    for one in results["results"][1:]:
        one["label"] = "a_very_long_name_without_any_space_" * 4
    chromium.open(written(results), width=width)
    assert chromium.script("document.documentElement.scrollWidth") == width
    beyond = chromium.script(
        f"""[...document.querySelectorAll('main *')].filter(one => !one.closest('.scroll, .hidden, nav, svg, thead') &&
              one.getBoundingClientRect().right > {width} + 1).map(one => one.outerHTML.slice(0, 90))"""
    )
    assert beyond == []


@pytest.mark.parametrize("kind", ["results", "few_shot_results", "regression"])
def test_text_can_be_read_in_light_and_in_dark(chromium, written, request, kind):
    results = request.getfixturevalue(kind)
    if kind == "results":  # shades where the colour of text changes, and both ends
        results["best_details"]["confusion"] = [[64, 36, 0], [65, 34, 1], [25, 0, 75]]
    page = written(results)
    grounds = []
    for dark in (False, True):
        chromium.open(page, dark=dark)
        grounds.append(chromium.script("getComputedStyle(document.body).backgroundColor"))
        assert chromium.script(CONTRAST) == []
    assert grounds[0] != grounds[1]


@pytest.mark.parametrize("javascript", [True, False], ids=["script", "no script"])
def test_hostile_names_never_run(chromium, written, results, javascript):
    text = json.dumps(results)
    for name, hostile in zip(
        ["blue", "red", "green", "centroid", "/somewhere", "pixels"], HOSTILE, strict=True
    ):
        text = re.sub(rf'"{name}', json.dumps(hostile)[:-1].replace("\\", "\\\\"), text)
    hostile = json.loads(text)
    for sample in hostile["inspection"]["samples"].values():
        sample["id"] = HOSTILE[1] + sample["id"]
    page = written(hostile)
    chromium.open(page, javascript=javascript)
    x, y, _ = chromium.script(POINT)
    chromium.settle()
    chromium.move(x, y)
    chromium.settle()
    assert chromium.messages == []
    assert asked_for(chromium) == [page.as_uri()]
    assert chromium.script("document.scripts.length") == 1
    assert (
        chromium.script("document.querySelectorAll('img, iframe, [onerror], [onload], [onfocus]').length")
        == 0
    )
    shown = chromium.script("document.body.innerText")
    for name in HOSTILE[:4]:
        assert name in shown
    assert "\u202e" not in shown
    assert "\\xff\\u202e\\n\\x1b" in shown


def test_a_page_prints(chromium, written, results):
    chromium.open(written(results))
    answer = chromium.call("Page.printToPDF", printBackground=False)
    assert len(answer["data"]) > 20_000
