"""The lessons' sliders, driven in a browser, show the numbers of their tables."""

import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from docs.course import tables

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.actions.action_builder import ActionBuilder  # noqa: E402
from selenium.webdriver.common.actions.pointer_input import PointerInput  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

DOCS = Path(__file__).parent.parent / "docs"
TABLES = sorted(tables.TABLES.glob("*.json"))


@pytest.fixture(scope="module")
def browser():
    if not (shutil.which("chromedriver") and shutil.which("chromium")):
        pytest.skip("no browser: Debian's chromium-driver has one")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in "headless=new", "no-sandbox", "disable-gpu", "disable-background-networking":
        options.add_argument(f"--{flag}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options, service) as opened:
        yield opened


@pytest.fixture(params=TABLES, ids=lambda path: path.stem)
def table(request, browser, tmp_path):
    """A page with the sliders of a table alone, opened."""
    text = request.param.read_text()
    static = (DOCS / "_static").as_uri()
    page = tmp_path / "page.html"
    page.write_text(
        f'<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="{static}/sliders.css">'
        f'<figure class="sliders"><script type="application/json">{text}</script>'
        f'<figcaption>caption</figcaption></figure><script src="{static}/sliders.js"></script>'
    )
    browser.get(page.as_uri())
    return json.loads(text)


def values_of(panel, at, sliders):
    row = 0
    for i in panel["over"]:
        row = row * len(sliders[i]["values"]) + at[i]
    return [values[row] for values in panel["numbers"].values()]


def read(text):
    """What a number on the page says."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return text


def check(browser, table, at):
    shown = [slider["values"][i] for slider, i in zip(table["sliders"], at, strict=True)]
    outputs = browser.find_elements(By.TAG_NAME, "output")
    assert [read(each.text) for each in outputs] == pytest.approx(shown, rel=1e-3)
    inputs = browser.find_elements(By.TAG_NAME, "input")
    assert [each.get_attribute("aria-valuetext") for each in inputs] == [o.text for o in outputs]
    for panel, part in zip(
        table["panels"], browser.find_elements(By.TAG_NAME, "section"), strict=True
    ):
        numbers = [each.text for each in part.find_elements(By.TAG_NAME, "dd")]
        for text, value in zip(numbers, values_of(panel, at, table["sliders"]), strict=True):
            number = isinstance(value, float | int)
            assert read(text) == (pytest.approx(value, rel=1e-3) if number else value or "–")
        if "map" in panel:
            (here,) = part.find_elements(By.CSS_SELECTOR, "td[aria-current=true]")
            assert float(here.text) == pytest.approx(read(numbers[0]), abs=0.06)


def test_every_value_can_be_reached_with_the_keyboard_and_shows_its_numbers(browser, table):
    at = [slider["start"] for slider in table["sliders"]]
    check(browser, table, at)
    for i, handle in enumerate(browser.find_elements(By.TAG_NAME, "input")):
        handle.send_keys(Keys.HOME)
        at[i] = 0
        check(browser, table, at)
        for _ in table["sliders"][i]["values"][1:]:
            handle.send_keys(Keys.ARROW_RIGHT)
            at[i] += 1
            check(browser, table, at)


def touch(browser, element, from_right):
    """Touches an element, some pixels from its right end, where it is in sight."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    y, right, bottom = browser.execute_script(
        "const r = arguments[0].getBoundingClientRect(); return [r.y, r.right, r.bottom]",
        element,
    )
    touches = ActionBuilder(browser, mouse=PointerInput("touch", "finger"))
    touches.pointer_action.move_to_location(int(right - from_right), int((y + bottom) / 2))
    touches.pointer_action.pointer_down().pointer_up()
    touches.perform()


def test_a_touch_moves_a_slider_and_the_curve_with_it(browser, table):
    handle = browser.find_element(By.TAG_NAME, "input")
    curves = browser.find_elements(By.TAG_NAME, "polyline")
    before = [curve.get_attribute("points") for curve in curves]
    touch(browser, handle, from_right=3)
    at = [slider["start"] for slider in table["sliders"]]
    at[0] = len(table["sliders"][0]["values"]) - 1
    check(browser, table, at)
    assert not curves or before != [curve.get_attribute("points") for curve in curves]


def test_a_touch_of_a_cell_of_a_map_moves_the_sliders_there(browser, table):
    at = [slider["start"] for slider in table["sliders"]]
    for panel, part in zip(
        table["panels"], browser.find_elements(By.TAG_NAME, "section"), strict=True
    ):
        if "map" in panel:
            column, row = panel["over"]
            lines = part.find_elements(By.TAG_NAME, "tr")
            touch(browser, lines[1].find_elements(By.TAG_NAME, "td")[2], from_right=5)
            at[column], at[row] = 2, len(table["sliders"][row]["values"]) - 2
            check(browser, table, at)


@pytest.mark.parametrize("make", [tables.rate_and_decay, tables.conventions])
def test_a_table_says_what_the_kept_runs_say(make):
    path = tables.TABLES / f"{make.__name__.replace('_', '-')}.json"
    assert json.loads(path.read_text()) == make()


def test_every_table_is_in_a_lesson():
    lessons = "".join(file.read_text() for file in sorted((DOCS / "course").glob("[0-9]*.md")))
    shown = re.findall(r"^```\{sliders\} (\S+)$", lessons, re.MULTILINE)
    assert sorted(shown) == [path.stem for path in TABLES]


def test_the_lessons_say_what_the_maps_show():
    def numbers(name, key):
        """Of each panel, by the values of its sliders."""
        table = json.loads((tables.TABLES / f"{name}.json").read_text())
        for panel in table["panels"]:
            axes = [table["sliders"][i]["values"] for i in panel["over"]]
            yield dict(zip(itertools.product(*axes), panel["numbers"][key], strict=True))

    times_rate, per_step = numbers("conventions", "test error, %")
    rates = sorted({rate for rate, _ in times_rate})
    assert times_rate[0.001, 3] == per_step[0.001, 0.003]
    over_rates = [times_rate[rate, 3] for rate in rates]
    assert (round(min(over_rates), 1), round(max(over_rates), 1)) == (17.4, 18.6)
    assert [round(per_step[rate, 0.003]) for rate in (rates[0], rates[-1])] == [27, 24]
    assert (round(times_rate[1e-4, 0.03]), round(per_step[1e-4, 0.03])) == (18, 85)

    right, wrong = numbers("rate-and-decay", "test error, %")
    loss, _ = numbers("rate-and-decay", "test loss")
    assert {round(right[0.001, decay]) for decay in (0.03, 0.1, 0.3, 1, 3)} == {15}
    assert (round(loss[0.001, 0.03], 2), round(loss[0.001, 3], 2)) == (0.59, 0.43)
    assert (round(wrong[0.001, 0.03]), round(wrong[0.001, 3])) == (25, 18)
    for panel in right, wrong, loss:
        assert panel[0.001, 3] < panel[0.001, 10] < panel[0.001, 30]
    for panel in right, wrong:
        assert np.ptp([panel[rate, 3] for rate in rates]) < 2
        for rate in rates:
            best = min(panel[each] for each in panel if each[0] == rate)
            assert round(panel[rate, 3] - best, 2) <= 1


def test_a_panel_has_a_value_for_every_place_of_its_sliders():
    for path in TABLES:
        table = json.loads(path.read_text())
        for panel in table["panels"]:
            count = 1
            for i in panel["over"]:
                count *= len(table["sliders"][i]["values"])
            columns = [*panel["numbers"].values(), *panel.get("curves", {}).values()]
            assert {len(values) for values in columns} == {count}
            assert panel["alt"] and panel["title"]
