"""Unit tests of the charts' and formatters' JavaScript modules, run in the browser."""

from typing import Any

from app.web.static_files import STATIC_PATH
from tests.browser.conftest import Open

SCRIPT = """async (path) => {
  const { Curve, align } = await import(`${path}/js/curve.js`);
  const loss = new Curve();
  loss.replace({ steps: [4, 8], values: [3, 2], min: [2.5, 1.5], max: [3.5, 2.5], stride: 4 });
  loss.add({ steps: [9, 10, 11], values: [1.5, "nan", 1] });
  loss.add({ steps: [10, 6], values: [1.2, "inf"] });
  const evaluation = new Curve();
  evaluation.add({ steps: [0, 9], values: [5, 2] });
  const aligned = align([loss, evaluation], (curve) => [curve.values]);
  return {
    steps: loss.steps, values: loss.values, low: loss.low, odd: [...loss.odd], latest: loss.latest,
    at: [loss.at(1), loss.at(8), loss.at(7), loss.at(99)],
    axis: aligned[0], missing: aligned[2].map((value) => value === undefined),
    smoothed: loss.smoothed(0.5).map((value) => value === null),
  };
}"""


def test_points_are_merged_in_order_and_non_finite_values_become_marks(open_page: Open) -> None:
    with open_page("/login", visitor=True) as page:
        found: dict[str, Any] = page.evaluate(SCRIPT, STATIC_PATH)
    assert found["steps"] == [4, 6, 8, 9, 10, 11]
    assert found["values"] == [3, None, 2, 1.5, 1.2, 1]
    assert found["low"] == [2.5, None, 1.5, 1.5, 1.2, 1]
    assert found["odd"] == [[6, "inf"]]
    assert found["latest"] == 1
    assert found["at"] == [None, 2, "inf", 1]
    assert found["axis"] == [0, 4, 6, 8, 9, 10, 11]
    assert found["missing"] == [False, True, True, True, False, True, True]
    assert found["smoothed"] == [False, True, False, False, False, False]


def test_a_forecast_continues_after_the_last_point_and_is_read_at_its_places(open_page: Open) -> None:
    with open_page("/login", visitor=True) as page:
        found = page.evaluate(
            """async (path) => {
          const { expected, placeOf } = await import(`${path}/js/forecast.js`);
          const { Curve, align } = await import(`${path}/js/curve.js`);
          const forecast = { steps: [20, 30, 40], values: [2.5, 2.25, 2.12345],
                             low: [2.5, 2.1, 1.98765], high: [2.5, 2.4, 2.3] };
          const loss = new Curve();
          loss.add({ steps: [10, 20], values: [3, 2.5] });
          const [axis, , ahead] = align([loss, forecast], (curve) => [curve.values]);
          return { axis, ahead: ahead.map((value) => value ?? null), end: expected(forecast, 2),
                   places: [19, 20, 35, 99].map((step) => placeOf(forecast, step)) };
        }""",
            STATIC_PATH,
        )
    assert found["axis"] == [10, 20, 30, 40]
    assert found["ahead"] == [None, 2.5, 2.25, 2.12345]
    assert found["end"] == {"value": "2.12", "low": "1.99", "high": "2.3"}
    assert found["places"] == [-1, 0, 1, 2]


def test_amounts_have_units_and_ticks_at_whole_ones(open_page: Open) -> None:
    with open_page("/login", visitor=True) as page:
        found = page.evaluate(
            """async (path) => {
          const { chartOptions, unitOf } = await import(`${path}/js/chart-options.js`);
          const view = { plot: document.body, colors: [1], isSparse: [false], isSmooth: false, isLog: false,
                         range: () => null, tickText: String, level: 900 };
          const optionsOf = (unit, level) => chartOptions({ ...view, unit: unitOf(unit), level });
          const rangeOf = (unit, level) => optionsOf(unit, level).scales.y.range(null, 400, 500);
          return [unitOf("bytes").tick(2 ** 30), unitOf("bytes").text(1.5 * 2 ** 20), unitOf("percent").text(41.7),
                  unitOf("watts").text(310.2), unitOf("loss").text(2.34567), rangeOf("bytes", 900).map(Math.round),
                  rangeOf("bytes", null).map(Math.round), rangeOf(undefined, 300)[0] <= 300];
        }""",
            STATIC_PATH,
        )
    assert found == ["1 GiB", "1.5 MiB", "42 %", "310 W", "2.346", [0, 972], [0, 540], True]


def test_numbers_are_formatted_as_on_the_server(open_page: Open) -> None:
    with open_page("/login", visitor=True) as page:
        found = page.evaluate(
            """async (path) => {
          const f = await import(`${path}/js/format.js`);
          return [f.number(1234567), f.compact(6740000000), f.bytes(1536), f.span(90), f.span(3), f.span(86400),
                  f.measure(0.00034), f.measure("nan"), f.measure(null), f.fill("{a} of {b}", {a: 1, b: 2})];
        }""",
            STATIC_PATH,
        )
    assert found == [
        "1,234,567", "6.74 B", "1.5 KiB", "2 minutes", "3 seconds", "24 hours", "3.40e-4", "nan", "–", "1 of 2"
    ]  # fmt: skip


def test_steps_have_places_on_an_axis_of_time_and_round_ticks(open_page: Open) -> None:
    with open_page("/login", visitor=True) as page:
        found = page.evaluate(
            """async (path) => {
          const { StepPlaces, ticks } = await import(`${path}/js/axis.js`);
          const places = new StepPlaces();
          places.tokensPerStep = 512;
          const of = (axis, step) => { places.axis = axis; return places.of(step); };
          places.setSeconds([10, 20, 25, 30, 40], [100, 150, null, 150, 350]);
          const seconds = [0, 5, 10, 20, 30, 40, 60].map((step) => of("seconds", step));
          const back = seconds.map((second) => places.step(second));
          return { seconds, back, tokens: of("tokens", 7), step: of("step", 7),
                   ticks: [ticks("tokens", 0, 1100, 5), ticks("seconds", 50, 400, 6), ticks("seconds", 0, 0.5, 5)] };
        }""",
            STATIC_PATH,
        )
    assert found["seconds"] == [0, 50, 100, 150, 250, 350, 550]
    assert found["back"] == [0, 5, 10, 20, 30, 40, 60]
    assert (found["tokens"], found["step"]) == (3584, 7)
    assert found["ticks"][0] == [0, 500, 1000]
    assert found["ticks"][1] == [60, 120, 180, 240, 300, 360]
    assert len(found["ticks"][2]) == 6


def test_outliers_do_not_stretch_the_axis(open_page: Open) -> None:
    with open_page("/login", visitor=True) as page:
        found = page.evaluate(
            """async (path) => {
          const { chartOptions, unitOf } = await import(`${path}/js/chart-options.js`);
          const view = { plot: document.body, colors: [1], isSparse: [false], isSmooth: false, isLog: false,
                         range: () => null, tickText: String, level: null, unit: unitOf("loss") };
          const rangeOf = (limits) => chartOptions({ ...view, limits }).scales.y.range(null, 1, 900);
          return [rangeOf(() => null)[1], rangeOf(() => [2, 4])];
        }""",
            STATIC_PATH,
        )
    assert found[0] >= 900
    assert 1 < found[1][0] <= 2
    assert 4 <= found[1][1] < 6
