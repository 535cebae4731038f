"""The tables of prior knowledge about faces.

- They contain the published prototypes (compared with a list written by hand), and every entry cites a source.
- Both directions agree: the full prototype of an expression, and the center of its region, lead back to it.
- Users can pass their own file; all its problems are reported at once, with the file name.
"""

from __future__ import annotations

import json

import pytest

from lavis_emovit.emotion import facial
from lavis_emovit.emotion.facial import FACIAL_UNITS, facial_priors
from lavis_emovit.emotion.labels import get_label_set
from lavis_emovit.errors import ConfigError, DataError

PUBLISHED = {
    "happiness": ["6+12", "6+12+25"],
    "sadness": ["1+4+15", "1+4+15"],
    "surprise": ["1+2+5+26", "1+2+5+26"],
    "fear": ["1+2+4+5+20+26", "1+2+4+5+20+25"],
    "anger": ["4+5+7+23", "4+5+7+24"],
    "disgust": ["9+15+16", "4+10+17"],
    "contempt": ["12+14"],
    "neutral": [""],
}


def test_published_tables():
    priors = facial_priors()
    found = {
        name: ["+".join(map(str, item.units)) for item in prior.prototypes]
        for name, prior in priors.expressions.items()
    }
    assert found == PUBLISHED
    assert set(priors.expressions) == set(get_label_set("expressions8").labels)
    signs = {name: prior.region.center() for name, prior in priors.expressions.items()}
    assert signs["happiness"][0] > 0 and all(signs[name][0] < 0 for name in ("sadness", "anger", "fear", "disgust"))
    assert signs["sadness"][1] < 0 < min(signs[name][1] for name in ("happiness", "anger", "fear", "surprise"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_both_directions(name):
    priors = facial_priors()
    for prototype in priors.expressions[name].prototypes:
        best, second, *_ = [*priors.expressions_of_units(prototype.units), ("none", 0.0)]
        assert best[0] == name and best[1] > second[1]
    assert all(0 < priors.expressions[name].probability(unit) < 1 for unit in FACIAL_UNITS)
    region = priors.region(name)
    assert name in priors.expressions_of_point(*region.center())
    assert region.distance(region.valence[1] + 0.25, region.arousal[0]) == pytest.approx(0.25)


def test_hand_calculated():
    priors = facial_priors()
    # Without stated probabilities, 0.85 for a unit of all prototypes, 0.05 for others, and half way for half of them.
    anger = priors.expressions["anger"].model_copy(update={"units": None})
    assert [anger.probability(unit) for unit in (4, 23, 12)] == pytest.approx([0.85, 0.45, 0.05])
    assert priors.agreement("happiness", {12}) == pytest.approx(2 / 3)  # 6+12 and 12: 2*1/(2+1)
    assert priors.agreement("disgust", {9, 15}) == 1.0  # unit 16 is not among the coded units
    assert priors.expressions_of_units(()) == [("neutral", 1.0)]
    with pytest.raises(DataError, match="happiness"):
        priors.region("hapiness")


def test_custom_file(tmp_path):
    content = json.loads(facial._PACKAGED.read_text())
    path = tmp_path / "custom.json"
    content["expressions"]["anger"]["prototypes"] = [{"units": [4, 7], "source": "facs1978"}]
    path.write_text(json.dumps(content))
    assert facial_priors(path).agreement("anger", {4, 7}) == 1.0
    content["expressions"]["anger"]["region"]["valence"] = [0.5, -0.5]
    content["expressions"]["fear"]["regoin"] = {}
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"(?s)custom\.json.*lowest and the highest.*did you mean 'region'"):
        facial_priors(path)
    content = json.loads(facial._PACKAGED.read_text())
    content["expressions"]["anger"]["prototypes"][0]["units"] = [99]
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="99"):
        facial_priors(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        facial_priors(tmp_path / "gone.json")


def test_every_unit_of_facs_has_its_own_name():
    names = [facial_priors().unit_name(unit) for unit in range(1, 47)]
    assert "facial action" not in names and len(set(names)) == 46
