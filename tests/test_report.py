"""Reports and notebooks: HTML that is well formed, says what the numbers say, fetches nothing, and answers its user."""

import html.parser
import itertools
import json
import pathlib
import shutil
import time
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo

import tfig
from tfig.pages import markup, report

NAMES = ["<cat>", "dog & co", "bird", "fish"]
VOID = {"meta", "img", "input", "br", "link"}


class Page(html.parser.HTMLParser):
    """A page that is well formed: its elements, with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag):
        """The attributes of every element of a kind."""
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def compared():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = ["integrated_gradients", "gradient", "attention_rollout"]
        return tfig.compare(zoo.build("sequential"), zoo.images(), asked, output="logits", class_names=NAMES)


@pytest.fixture(scope="module")
def page(compared, tmp_path_factory):
    table = tfig.Evaluation(
        {"gradient": {"sparseness": np.array([0.5, 0.7]), "deletion": np.array([0.3, 0.1])},
         "integrated_gradients": {"sparseness": np.array([0.2, 0.3]), "deletion": np.array([0.9, 0.8])}},
        {}, {"sparseness": "higher", "deletion": "lower"}, {("lrp", ""): "no rule for <it>"},
    )  # fmt: skip
    place = tmp_path_factory.mktemp("report") / "why.html"
    assert tfig.report(compared, place, title="Why <so>?", evaluation=table) == place
    return place


def test_it_says_what_was_asked_and_answered(page, compared):
    text = page.read_text()
    found = Page(text)
    said = " ".join("".join(found.text).split())
    e = compared["integrated_gradients"]
    for words in (
        "Why <so>?", "Row 2:", "<cat>" if 0 in e.target else NAMES[e.target[0]], "Sundararajan", "arXiv:1703.01365",
        "hyper-parameterssteps=64", "the predicted class of each row", "zeros (the method's default)",
        tf.__version__, keras.__version__, "SHA-256", "attention_rollout: ", "lrp: no rule for <it>", "0.6 [",
    ):  # fmt: skip
        assert words in said, words
    assert "<so>" not in text and "<cat>" not in text
    outputs = zoo.build("sequential")(zoo.images()).numpy()
    for row, scores in enumerate(outputs):
        best = int(scores.argmax())
        assert f"{NAMES[best]}{scores[best]:.4g}" in said and f"{e.score[row]:.5g}" in said
    for attrs in found.all("img"):
        assert attrs["alt"] and attrs["src"].startswith("data:image/png;base64,")
    assert [attrs["lang"] for attrs in found.all("html")] == ["en"]
    levels = [int(tag[1]) for tag, _ in found.elements if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    for canvas in found.all("canvas"):
        assert canvas["role"] == "img" and "of it for the target, strongest in the" in canvas["aria-label"]
    for outside in ("http://", "https://", "//cdn", "@import", "url("):
        assert outside not in text


def test_what_a_map_says_in_words():
    map_ = np.zeros((9, 9), "float32")
    assert report.described(map_) == "nothing: zero everywhere"
    map_[0, 0] = np.nan
    assert report.described(map_) == "NaN or infinite in 1 of 81 positions"
    map_[0, 0], map_[1, 8], map_[4, 4] = 0, -3, 1
    assert report.described(map_) == "25% of it for the target, strongest in the top right (row 1, column 8: -3)"


def test_every_kind_is_reported(tmp_path):
    random = np.random.default_rng(0)
    x = {"image": random.uniform(size=(2, 8, 8, 3)), "table": random.normal(size=(2, 30)), "sound": np.ones((2, 50, 2)),
         "text": np.array([[1, 2, 3, 0], [3, 0, 0, 0]])}  # fmt: skip
    maps = {name: random.normal(size=leaf.shape) for name, leaf in x.items()}
    e = tfig.Explanation(maps, np.array([0, 1]), np.ones(2), None, None, "integrated_gradients", x=x)
    text = tfig.report(e, tmp_path / "mixed.html", tokens=["", "<good>", "not", "bad"]).read_text()
    said = "".join(Page(text).text)
    assert "&lt;good&gt;" in text and "15 others" in said
    assert "not known: a server answered" in said and "integrated_gradients, sound:" in said
    for shown in (e._repr_html_(), e[:0]._repr_html_()):
        Page(shown)
    assert e._repr_png_().startswith(b"\x89PNG")
    strange = tfig.Explanation(np.ones((1, 2, 2, 2, 2, 2)), None, np.ones(1), None, None, "gradient")
    assert "Explanation by gradient" in strange._repr_html_() and strange._repr_png_() is None


def test_what_cannot_be_reported():
    e = tfig.Explanation(np.ones((2, 3)), None, np.ones(2), None, None, "gradient")
    with pytest.raises(ValueError, match="nothing to report"):
        tfig.report({}, "x.html")
    with pytest.raises(ValueError, match=r"one set of rows, and these have \{'a': 2, 'b': 1\}"):
        tfig.report({"a": e, "b": e[0]}, "x.html")


def test_pictures_keep_their_size_or_are_averaged():
    image = np.random.default_rng(0).uniform(size=(1024, 512, 3)).astype("float32")
    small = markup.reduced(image)
    assert small.shape == (512, 256, 3)
    np.testing.assert_allclose(small, image.reshape(512, 2, 256, 2, 3).mean((1, 3)), atol=1e-6)
    assert markup.reduced(small) is small


def test_provenance_is_in_words_and_kept(tmp_path):
    model, x = zoo.build("sequential"), zoo.images()
    e = tfig.explain(model, x, "gradient", target=tfig.Contrast("predicted", 2), class_names=NAMES, seed=4)
    assert e.provenance["target"] == "the predicted class rather than bird" and e.provenance["seed"] == "4"
    assert e.provenance["baseline"] == "none: the method has no baseline"
    assert tfig.Explanation.load(e.save(tmp_path / "e.npz")).provenance == dict(e.provenance)
    asked = {
        "a class given for each row": [1, 2, 3], "class 2": 2,
        "the function <lambda> of the outputs": lambda y: y[:, 0],
        "the function <lambda> of the outputs and arrays": (lambda y, w: y[:, 0] * w, np.ones(3, "float32")),
    }  # fmt: skip
    for words, target in asked.items():
        given = tfig.explain(model, x, tfig.IntegratedGradients(2), target=target, baseline=np.ones((8, 8, 3)))
        assert given.provenance["target"] == words
        assert given.provenance["baseline"].startswith("an array [8, 8, 3], SHA-256 ")
    references = tfig.explain(model, x, tfig.ExpectedGradients(2), baseline=tfig.baselines.Dataset(x))
    assert references.provenance["baseline"].startswith("Dataset of [3, 8, 8, 3], SHA-256 ")


@pytest.fixture(scope="module")
def browser():
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium and chromedriver on this machine (Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-sync",
                 "no-first-run", "disable-component-update", "window-size=1200,900"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def opened(browser, page):
    browser.get(pathlib.Path(page).as_uri())
    wait(browser, "return drawn.size > 0")


def wait(browser, condition):
    until = time.monotonic() + 10
    while not browser.execute_script(condition):
        assert time.monotonic() < until, condition
        time.sleep(0.05)


PIXELS = """const canvas = document.querySelectorAll("canvas")[0];
return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];"""
SLIDE = """const one = document.getElementById(arguments[0]); one.value = arguments[1];
one.dispatchEvent(new Event("input"));"""


def test_in_a_browser_maps_follow_their_sliders(browser, page, compared):
    opened(browser, page)
    maps = compared["integrated_gradients"].heatmap()[0]
    full = np.quantile(np.abs(maps), 0.99)

    def shown():
        return np.array(browser.execute_script(PIXELS)).reshape(8, 8, 4)[..., :3].astype(float)

    before = shown()
    browser.execute_script(SLIDE, "opacity", 0)
    grey = shown()
    assert (grey.max(-1) == grey.min(-1)).all() and not np.array_equal(before, grey)  # the image alone
    browser.execute_script(SLIDE, "opacity", 100)
    strength = np.clip(maps / full, -1, 1)
    warm, cold = np.array([178, 24, 43]), np.array([33, 102, 172])
    colour = np.where(strength[..., None] >= 0, warm, cold)
    size = np.abs(strength)[..., None]
    np.testing.assert_allclose(shown(), grey * (1 - size) + colour * size, atol=1.5)
    browser.execute_script(SLIDE, "threshold", 50)
    hidden = np.abs(strength) < 0.49
    np.testing.assert_array_equal(shown()[hidden], grey[hidden])
    assert browser.execute_script('return document.getElementById("threshold-says").textContent') == "50 %"
    browser.execute_script('below.checked = false; below.dispatchEvent(new Event("input"))')
    assert (shown()[hidden] == 255).all()


def test_in_a_browser_values_are_read_by_pointer_and_by_key(browser, page, compared):
    keys = pytest.importorskip("selenium.webdriver").Keys
    opened(browser, page)
    canvas = browser.find_elements("css selector", "canvas")[0]
    maps = compared["integrated_gradients"].heatmap()[0]

    def said():
        return browser.find_elements("css selector", "figure output")[0].text

    browser.execute_script("arguments[0].scrollIntoView()", canvas)
    chains = pytest.importorskip("selenium.webdriver").ActionChains(browser)
    size = canvas.size
    x, y = 5, 2
    chains.move_to_element_with_offset(
        canvas,
        int((x + 0.5) * size["width"] / 8 - size["width"] / 2),
        int((y + 0.5) * size["height"] / 8 - size["height"] / 2),
    ).perform()
    where, value = said().split(": ")
    assert where == f"row {y}, column {x}"
    assert float(value) == pytest.approx(maps[y, x], rel=6e-3, abs=float(np.abs(maps).max()) / 30000)
    canvas.send_keys(keys.ARROW_DOWN, keys.ARROW_DOWN, keys.ARROW_LEFT)
    where, value = said().split(": ")
    assert where == f"row {y + 2}, column {x - 1}"
    assert float(value) == pytest.approx(maps[y + 2, x - 1], rel=6e-3, abs=float(np.abs(maps).max()) / 30000)


def test_in_a_browser_tables_sort_and_nothing_is_fetched(browser, page):
    opened(browser, page)
    head = browser.find_elements("css selector", "section .grid thead button")[1]

    def order():
        return [row.text for row in browser.find_elements("css selector", "section .grid tbody th")]

    browser.execute_script("arguments[0].click()", head)
    assert order() == ["integrated_gradients", "gradient"]
    browser.execute_script("arguments[0].click()", head)
    assert order() == ["gradient", "integrated_gradients"]
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert all(name.startswith("data:") for name in fetched)
    unnamed = browser.execute_script(
        "return [...document.querySelectorAll('input')].filter((one) => !one.labels.length)"
    )
    assert not unnamed
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"], json.dumps(fetched)


def test_in_a_browser_everything_is_printed(browser, tmp_path):
    random = np.random.default_rng(0)
    x = random.uniform(size=(30, 16, 16, 3)).astype("float32")
    e = tfig.Explanation(x - 0.5, np.zeros(30, int), np.ones(30), None, None, "gradient", x=x)
    opened(browser, tfig.report(e, tmp_path / "printed.html"))
    assert browser.execute_script("return drawn.size") < 30
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")  # nothing waits for what comes later
    assert browser.execute_script("return drawn.size") == 30
    blank = "return [...document.querySelectorAll('canvas')].filter((one) => !drawn.get(one).grey).length"
    assert browser.execute_script(blank) == 0


def test_in_a_browser_a_hundred_images_are_there_in_a_second(browser, tmp_path):
    random = np.random.default_rng(0)
    x = random.uniform(size=(100, 224, 224, 3)).astype("float32")
    e = tfig.Explanation(x - 0.5, np.zeros(100, int), np.ones(100), None, None, "gradient", x=x)
    opened(browser, tfig.report(e, tmp_path / "many.html"))
    wait(browser, "return performance.getEntriesByType('navigation')[0].loadEventEnd > 0")
    # Pictures out of view are not decoded, and their maps not read: a second is ten times what it takes.
    assert browser.execute_script("return drawn.size") < 20
    assert browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd") < 5000
