"""Which learners a spec may name, its user's own among them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models import serving
from models.candidates import ONLINE, Unusable, learner
from models.learners import LEARNERS
from models.runs import Candidate
from models.spec import BASELINE, CandidateSpec, ModelSpec, check, read_spec
from models.training import Trained, fit
from tests.streams import examples, spec

OWN = """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.impute import SimpleImputer
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

def naive(spec, seed, smoothing=1e-9):
    return make_pipeline(SimpleImputer(), GaussianNB(var_smoothing=smoothing))

def discriminant(spec, seed):
    return make_pipeline(SimpleImputer(), LinearDiscriminantAnalysis())

class Odd(ClassifierMixin, BaseEstimator):
    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        return self
    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))

def odd(spec, seed):
    return Odd()

def broken(spec, seed):
    raise KeyError("nothing here")
"""


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of a user, with a module that works and one that cannot be imported."""
    package = tmp_path / "acme_learners"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "own.py").write_text(OWN)
    (package / "bad.py").write_text("import nothing_of_that_name")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("acme_learners")]:
        del sys.modules[name]


def trying(*candidates: str | CandidateSpec) -> ModelSpec:
    return msgspec.structs.replace(
        spec(), training=msgspec.structs.replace(spec().training, candidates=candidates)
    )


def tried(*candidates: str | CandidateSpec, modules: tuple[str, ...] = ()) -> dict[str, Candidate]:
    trained: Trained = fit(trying("linear", *candidates), examples(), 0, modules=modules)
    return {candidate.name: candidate for candidate in trained.candidates}


def test_a_candidate_may_have_parameters_and_a_name_of_its_own() -> None:
    stiff = CandidateSpec(learner="linear", name="stiff", parameters={"penalty": 1e6})
    found = tried(stiff)

    assert found["stiff"].parameters == {"penalty": 1e6, "learner": "linear"}
    assert (
        found["stiff"].metrics["log_loss"].value > found["linear"].metrics["log_loss"].value + 0.1
    )


def test_a_spec_in_toml_names_candidates_in_both_ways() -> None:
    known = read_spec(
        """
        name = "m"
        task = "regression"
        features = [{ name = "a" }]
        [training]
        candidates = [
          "linear",
          { learner = "linear", name = "stiff", parameters = { penalty = 10.0 } },
        ]
        """,
        toml=True,
    )

    assert [one.shown for one in known.training.tried] == ["linear", "stiff"]
    assert read_spec(msgspec.json.encode(known)) == known


@pytest.mark.parametrize(
    ("candidates", "problem"),
    [
        (("linear", "linear"), "names of candidates must differ"),
        ((CandidateSpec(learner="linear", name=BASELINE),), "may be called 'constant'"),
    ],
)
def test_names_of_candidates_tell_them_apart(
    candidates: tuple[str | CandidateSpec, ...], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        check(trying(*candidates))


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("magic", "no learner magic; there are logistic_regression, linear"),
        ("acme_learners.own:naive", "acme_learners.own is not in the setting learner_modules"),
        ("os:system", "os is not in the setting"),
    ],
)
def test_what_is_unknown_or_not_allowed_is_not_imported(
    acme: None, path: str, problem: str
) -> None:
    with pytest.raises(Unusable, match=problem):
        learner(CandidateSpec(learner=path), ["acme", "acme_learners_too"])
    assert "acme_learners.own" not in sys.modules


@pytest.mark.parametrize("allowed", ["acme_learners", "acme_learners.own"])
def test_a_user_s_own_learner_is_tried_like_any_other(acme: None, allowed: str) -> None:
    own = CandidateSpec(learner="acme_learners.own:naive", parameters={"smoothing": 1e-3})
    found = tried(own, modules=(allowed,))["acme_learners.own:naive"]

    assert found.problem == ""
    assert found.metrics["gain"].value > 0.1
    assert found.parameters["smoothing"] == 1e-3
    assert len(found.parameters["source"]) == 12


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("own:odd", "acme_learners.own.Odd"),
        ("own:broken", "KeyError: 'nothing here'"),
        ("own:absent", "cannot be imported: AttributeError"),
        ("bad:any", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_with_a_user_s_own_learner_is_no_concern_of_the_others(
    acme: None, name: str, problem: str
) -> None:
    """A type of its own, above all: no worker would load it."""
    found = tried(f"acme_learners.{name}", modules=("acme_learners",))

    assert found["linear"].chosen
    assert problem in found[f"acme_learners.{name}"].problem


def test_a_learner_without_weights_is_used_where_all_weigh_the_same(acme: None) -> None:
    own, modules = "acme_learners.own:discriminant", ("acme_learners",)
    unequal = examples()._replace(weights=np.linspace(1.0, 2.0, 600))

    assert not tried(own, modules=modules)[own].problem
    trained = fit(trying("linear", own), unequal, 0, modules=modules)
    assert "takes no sample_weight" in trained.candidates[1].problem


def test_an_online_learner_goes_on_from_the_champion_of_its_kind_only() -> None:
    known = examples(n=1200)
    online, batch = trying(ONLINE), trying("linear")
    first = fit(online, known.part(0, 800), 0)
    champion = serving.load(first.artefact, online)
    other = serving.load(fit(batch, known.part(0, 800), 0).artefact, batch)

    events = [
        fit(online, known, 0, champion=each).candidates[0].parameters["events"]
        for each in (champion, other, None)
    ]

    assert first.candidates[0].parameters["events"] == 600
    assert events == [900, 900, 900]
    assert fit(online, known.part(400), 0, champion=champion).candidates[0].parameters[
        "events"
    ] == 600 + (1000 - 600)
    assert fit(online, known, 0, champion=champion).artefact != fit(online, known, 0).artefact


def test_every_known_learner_has_a_name_that_a_spec_may_use() -> None:
    for name in (*LEARNERS, ONLINE):
        assert learner(CandidateSpec(learner=name)).record == {}
