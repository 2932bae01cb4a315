"""amortnlme: amortized and classical non-linear mixed-effects modeling.

This is the only list of public names. Each is fetched from its home when it is first asked for, so that
`import amortnlme` costs a few milliseconds and loads no numerical library at all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amortnlme.core.errors import AmortNlmeError as AmortNlmeError
    from amortnlme.data.bundled import bundled_names as bundled_names
    from amortnlme.data.bundled import load_bundled as load_bundled
    from amortnlme.data.covariate_model import impute as impute
    from amortnlme.data.dataset import Dataset as Dataset
    from amortnlme.data.design import Design as Design
    from amortnlme.data.design import Dose as Dose
    from amortnlme.data.event_table import read_csv as read_csv
    from amortnlme.data.event_table import read_frame as read_frame
    from amortnlme.data.event_table import to_csv as to_csv
    from amortnlme.data.event_table import to_frame as to_frame
    from amortnlme.data.imputation import fill_covariate as fill_covariate
    from amortnlme.data.limits import censor as censor
    from amortnlme.data.limits import with_measurements as with_measurements
    from amortnlme.data.subject import Subject as Subject
    from amortnlme.data.wide_table import read_wide as read_wide
    from amortnlme.diagnostics.arviz_export import to_inference_data as to_inference_data
    from amortnlme.diagnostics.compare import compare as compare
    from amortnlme.diagnostics.partial_effects import partial_effect as partial_effect
    from amortnlme.methods.amortized import Amortized as Amortized
    from amortnlme.methods.amortized_selection import AmortizedSelection as AmortizedSelection
    from amortnlme.methods.classical import Fo as Fo
    from amortnlme.methods.classical import Foce as Foce
    from amortnlme.methods.classical import Focei as Focei
    from amortnlme.methods.classical import Laplace as Laplace
    from amortnlme.methods.classical import Quadrature as Quadrature
    from amortnlme.methods.dosing import Regimen as Regimen
    from amortnlme.methods.dosing import dose_for as dose_for
    from amortnlme.methods.dosing import predict_regimen as predict_regimen
    from amortnlme.methods.dosing import repeated as repeated
    from amortnlme.methods.fit import fit as fit
    from amortnlme.methods.imputed import pool_fits as pool_fits
    from amortnlme.methods.join import JoinOptions as JoinOptions
    from amortnlme.methods.join import join as join
    from amortnlme.methods.joint_fit import JointFit as JointFit
    from amortnlme.methods.joint_model import Endpoint as Endpoint
    from amortnlme.methods.joint_model import JointModel as JointModel
    from amortnlme.methods.joint_use import conditional_effects as conditional_effects
    from amortnlme.methods.joint_use import information as information
    from amortnlme.methods.joint_use import predict_endpoint as predict_endpoint
    from amortnlme.methods.joint_use import virtual_patients as virtual_patients
    from amortnlme.methods.near_optimum import near_optimum as near_optimum
    from amortnlme.methods.patient import patient_posterior as patient_posterior
    from amortnlme.methods.pooled import Pooled as Pooled
    from amortnlme.methods.population_fit import PopulationFit as PopulationFit
    from amortnlme.methods.profiles import profiles as profiles
    from amortnlme.methods.resampling import bootstrap as bootstrap
    from amortnlme.methods.resampling import sample_population as sample_population
    from amortnlme.methods.saem import Saem as Saem
    from amortnlme.methods.saem_selection import SaemSelection as SaemSelection
    from amortnlme.methods.sampled_vi import SampledVi as SampledVi
    from amortnlme.methods.select import select as select
    from amortnlme.methods.selection import Selection as Selection
    from amortnlme.methods.stepwise_selection import Cossac as Cossac
    from amortnlme.methods.stepwise_selection import Samba as Samba
    from amortnlme.methods.stepwise_selection import Scm as Scm
    from amortnlme.methods.vae import Vae as Vae
    from amortnlme.methods.vae_search import VaeSchedule as VaeSchedule
    from amortnlme.methods.vae_selection import VaeSelection as VaeSelection
    from amortnlme.methods.validation import choose_ridge as choose_ridge
    from amortnlme.methods.validation import score_new_subjects as score_new_subjects
    from amortnlme.methods.vi import Vi as Vi
    from amortnlme.model.contract import check_model as check_model
    from amortnlme.model.individual import IndividualModel as IndividualModel
    from amortnlme.model.registry import load_model as load_model
    from amortnlme.model.registry import model_names as model_names
    from amortnlme.neural.calibrate import calibrate as calibrate
    from amortnlme.neural.estimator import Estimator as Estimator
    from amortnlme.neural.recognition_model import RecognitionModel as RecognitionModel
    from amortnlme.neural.spec import NetworkSpec as NetworkSpec
    from amortnlme.neural.spec import TrainingSpec as TrainingSpec
    from amortnlme.neural.train import train as train
    from amortnlme.population.candidates import Candidates as Candidates
    from amortnlme.population.candidates import parse_candidates as parse_candidates
    from amortnlme.population.effects import CovariateEffect as CovariateEffect
    from amortnlme.population.effects import RandomEffects as RandomEffects
    from amortnlme.population.formula import parse_formula as parse_formula
    from amortnlme.population.networks import NetworkEffect as NetworkEffect
    from amortnlme.population.networks import NetworkInput as NetworkInput
    from amortnlme.population.population_model import PopulationModel as PopulationModel
    from amortnlme.population.posterior_draws import PosteriorDraws as PosteriorDraws
    from amortnlme.population.toml import read_population as read_population
    from amortnlme.report.joint_page import write_joint_report as write_joint_report
    from amortnlme.report.page import write_report as write_report
    from amortnlme.report.quickstart import quickstart as quickstart
    from amortnlme.report.selection_page import write_selection_report as write_selection_report
    from amortnlme.training.training_set import TrainingSet as TrainingSet

_HOMES = {
    "amortnlme.core.errors": ["AmortNlmeError"],
    "amortnlme.data.bundled": ["bundled_names", "load_bundled"],
    "amortnlme.data.covariate_model": ["impute"],
    "amortnlme.data.dataset": ["Dataset"],
    "amortnlme.data.design": ["Design", "Dose"],
    "amortnlme.data.event_table": ["read_csv", "read_frame", "to_csv", "to_frame"],
    "amortnlme.data.imputation": ["fill_covariate"],
    "amortnlme.data.limits": ["censor", "with_measurements"],
    "amortnlme.data.subject": ["Subject"],
    "amortnlme.data.wide_table": ["read_wide"],
    "amortnlme.diagnostics.arviz_export": ["to_inference_data"],
    "amortnlme.diagnostics.compare": ["compare"],
    "amortnlme.diagnostics.partial_effects": ["partial_effect"],
    "amortnlme.methods.amortized": ["Amortized"],
    "amortnlme.methods.amortized_selection": ["AmortizedSelection"],
    "amortnlme.methods.classical": ["Fo", "Foce", "Focei", "Laplace", "Quadrature"],
    "amortnlme.methods.dosing": ["Regimen", "dose_for", "predict_regimen", "repeated"],
    "amortnlme.methods.fit": ["fit"],
    "amortnlme.methods.imputed": ["pool_fits"],
    "amortnlme.methods.join": ["JoinOptions", "join"],
    "amortnlme.methods.joint_fit": ["JointFit"],
    "amortnlme.methods.joint_model": ["Endpoint", "JointModel"],
    "amortnlme.methods.joint_use": [
        "conditional_effects",
        "information",
        "predict_endpoint",
        "virtual_patients",
    ],
    "amortnlme.methods.near_optimum": ["near_optimum"],
    "amortnlme.methods.patient": ["patient_posterior"],
    "amortnlme.methods.pooled": ["Pooled"],
    "amortnlme.methods.population_fit": ["PopulationFit"],
    "amortnlme.methods.profiles": ["profiles"],
    "amortnlme.methods.resampling": ["bootstrap", "sample_population"],
    "amortnlme.methods.saem": ["Saem"],
    "amortnlme.methods.saem_selection": ["SaemSelection"],
    "amortnlme.methods.sampled_vi": ["SampledVi"],
    "amortnlme.methods.select": ["select"],
    "amortnlme.methods.selection": ["Selection"],
    "amortnlme.methods.stepwise_selection": ["Cossac", "Samba", "Scm"],
    "amortnlme.methods.vae": ["Vae"],
    "amortnlme.methods.vae_search": ["VaeSchedule"],
    "amortnlme.methods.vae_selection": ["VaeSelection"],
    "amortnlme.methods.validation": ["choose_ridge", "score_new_subjects"],
    "amortnlme.methods.vi": ["Vi"],
    "amortnlme.model.contract": ["check_model"],
    "amortnlme.model.individual": ["IndividualModel"],
    "amortnlme.model.registry": ["load_model", "model_names"],
    "amortnlme.neural.calibrate": ["calibrate"],
    "amortnlme.neural.estimator": ["Estimator"],
    "amortnlme.neural.recognition_model": ["RecognitionModel"],
    "amortnlme.neural.spec": ["NetworkSpec", "TrainingSpec"],
    "amortnlme.neural.train": ["train"],
    "amortnlme.population.candidates": ["Candidates", "parse_candidates"],
    "amortnlme.population.effects": ["CovariateEffect", "RandomEffects"],
    "amortnlme.population.formula": ["parse_formula"],
    "amortnlme.population.networks": ["NetworkEffect", "NetworkInput"],
    "amortnlme.population.population_model": ["PopulationModel"],
    "amortnlme.population.posterior_draws": ["PosteriorDraws"],
    "amortnlme.population.toml": ["read_population"],
    "amortnlme.report.joint_page": ["write_joint_report"],
    "amortnlme.report.page": ["write_report"],
    "amortnlme.report.quickstart": ["quickstart"],
    "amortnlme.report.selection_page": ["write_selection_report"],
    "amortnlme.training.training_set": ["TrainingSet"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("amortnlme")
    elif name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"amortnlme has no public name {name!r}; its names are in amortnlme.__all__")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
