"""Option objects refuse what they do not know."""

import json

import pytest

from amortnlme.core.errors import TrainingError
from amortnlme.neural.spec import NetworkSpec, TrainingSpec


@pytest.mark.parametrize("kind", [NetworkSpec, TrainingSpec])
def test_options_round_trip_through_json(kind):
    assert kind.from_config(json.loads(json.dumps(kind().to_config()))) == kind()


def test_later_options_are_stored_only_where_they_are_used():
    """The fingerprint of an estimator covers this configuration; a new option must not change old ones."""
    used = NetworkSpec(exchangeable=("delta", "gamma"), coupling="spline")
    assert set(used.to_config()) - set(NetworkSpec().to_config()) == {"exchangeable", "coupling"}
    assert NetworkSpec.from_config(json.loads(json.dumps(used.to_config()))) == used


@pytest.mark.parametrize("kind", [NetworkSpec, TrainingSpec])
def test_an_unknown_option_is_refused_by_name(kind):
    with pytest.raises(TrainingError, match="dropout") as caught:
        kind.from_config({"dropout": 0.1})
    assert caught.value.code == "E_SPEC_UNKNOWN_KEY"


@pytest.mark.parametrize(
    "options",
    [
        {"tokens": "words"},
        {"summary": "transformer"},
        {"coupling": "cubic"},
        {"exchangeable": ("delta",)},
        {"exchangeable": ("delta", "delta")},
        {"exchangeable": ("delta", "gamma"), "affine_head": False},
        {"rise": ("t0",), "difference_features": True},
        {"rise": ("t0", "offset"), "difference_features": True, "rise_search": "slope"},
        {"rise_search": "level"},
        {"rise": ("t0", "offset", "k"), "difference_features": True, "output_scaled": ("a",)},
        {"rise": ("t0", "offset", "k")},
        {"history_rates": (-1.0,)},
        {"summary_width": 0},
        {"flow_depth": 0},
        {"buckets": ()},
        {"buckets": (8, 8)},
        {"buckets": (16, 8)},
    ],
)
def test_impossible_network_options_are_refused(options):
    with pytest.raises(TrainingError) as caught:
        NetworkSpec(**options)
    assert caught.value.code == "E_SPEC_VALUE"


@pytest.mark.parametrize(
    "options",
    [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"clipnorm": -1.0}, {"patience": -1}],
)
def test_impossible_training_options_are_refused(options):
    with pytest.raises(TrainingError) as caught:
        TrainingSpec(**options)
    assert caught.value.code == "E_SPEC_VALUE"
