from typing import Annotated, Literal

import msgspec
import pytest

from experiments.harness import settings


class Example(settings.Settings, frozen=True, kw_only=True):
    epochs: Annotated[settings.Count, msgspec.Meta(description="passes")]
    decays: tuple[settings.NonNegative, ...]
    data: Literal["digits", "fashion-mnist"]
    shuffle: bool


FILE = {"epochs": 3, "decays": [0, 0.1], "data": "digits", "shuffle": True}


def test_later_sources_override_earlier_ones_and_text_is_read_as_the_keys_type():
    line = {"epochs": "5", "decays": ["0.5", "1e-3"], "shuffle": "false"}
    built = settings.build(Example, {"file": (FILE, False), "command line": (line, True)})
    assert built == Example(epochs=5, decays=(0.5, 1e-3), data="digits", shuffle=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, r"my\.toml: unknown key 'epoch'; did you mean 'epochs'\?"),
        ({"zzz": 3}, r"unknown key 'zzz'; known: epochs, decays, data, shuffle"),
        ({"epochs": 0}, r"my\.toml: epochs = 0: Expected `int` >= 1"),
        ({"epochs": 2.5}, r"epochs = 2\.5: Expected `int`, got `float`"),
        ({"epochs": "3"}, r"epochs = '3': Expected `int`, got `str`"),
        ({"decays": 0.1}, r"decays = 0\.1: Expected `array`"),
        ({"decays": [0.1, -1]}, r"decays = 0\.1 -1: Expected `float` >= 0\.0 .*\[1\]"),
        ({"decays": [float("nan")]}, r"decays = nan: Expected `float` >= 0\.0"),
        ({"data": "digit"}, r"data = 'digit': .*; did you mean 'digits'\?"),
        ({"shuffle": 1}, r"shuffle = 1: Expected `bool`"),
    ],
)
def test_a_bad_value_is_refused_with_its_source_key_and_remedy(change, message):
    with pytest.raises(settings.SettingsError, match=message):
        settings.build(Example, {"my.toml": ({**FILE, **change}, False)})


def test_a_missing_key_is_named():
    with pytest.raises(settings.SettingsError, match="no value for data, shuffle in my.toml"):
        settings.build(Example, {"my.toml": ({"epochs": 1, "decays": []}, False)})


def test_text_that_is_no_number_is_refused():
    with pytest.raises(settings.SettingsError, match="epochs = 'many': Expected `int`"):
        settings.build(Example, {"command line": ({"epochs": "many"}, True)})


def test_an_unreadable_file_is_named(tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("epochs = = 3")
    for path in (broken, tmp_path / "absent.toml", tmp_path):
        with pytest.raises(settings.SettingsError, match=f"cannot read the settings in {path}"):
            settings.read(path)
