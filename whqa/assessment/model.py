"""A trained run, loaded to judge new masks: the error-map networks of its folds and what they did on unseen cases.

A run may come from a stranger, so nothing in it is trusted to be code: checkpoints are read as tensors only, and
config.yaml may name no other classes than the networks that whqa has.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from whqa.assessment.model_file import AGAIN, refuse_lacking, unpacked
from whqa.assessment.trained_weights import TrainedWeights, trained_weights
from whqa.config.instantiate import make
from whqa.config.run_config import CONFIG, read_run_config, refuse_mixed_settings
from whqa.data.formats.volume_files import SpacingRule
from whqa.data.preprocess import Preprocess
from whqa.errors import InputError
from whqa.files import as_named, reading
from whqa.judges.calibration import CALIBRATION, Calibration, CorrectionRule, read_calibration
from whqa.judges.correction import harmless_by_structure
from whqa.judges.second_opinion import family_weights
from whqa.masks.external import choose_methods
from whqa.masks.external_settings import ExternalSettings
from whqa.masks.run_state import is_complete, made_again, made_anew, refuse_damaged
from whqa.modules.errormap import ErrorMapModule, in_channels, joins_mask, mask_channels, out_channels
from whqa.modules.segmenter import SegmenterModule
from whqa.results.case_table import case_table
from whqa.results.conformal import ConfidenceBelt, OutOfFold, belt_of_folds
from whqa.results.familiarity import FeatureRow, read_features
from whqa.results.held_back_gains import read_gains
from whqa.results.run_folds import folds_of_model
from whqa.structures import SCHEMES, LabelScheme, label_scheme

NETWORKS = (
    "whqa.networks.voxresnet.VoxResNet",
    "whqa.networks.monai_networks.dynunet",
    "whqa.networks.monai_networks.segresnet",
)


@dataclass(frozen=True, eq=False)
class FoldNetwork:
    """The error-map network of one fold.

    Attributes:
        fold: number of the fold that it never saw.
        module: in evaluation mode, calibrated.
        segmenter: of the same fold, which gives the second opinion; None where another program does, or nobody.
        sha256: of its checkpoint; `segmenter_sha256` of that of the segmenter.
        bf16: whether it was trained in bf16 and may run in it.
        hears_all: whether it hears the mean opinion of all networks' segmenters, as in its test that of several.
    """

    fold: int
    module: ErrorMapModule
    sha256: str
    bf16: bool = False
    segmenter: SegmenterModule | None = None
    segmenter_sha256: str | None = None
    hears_all: bool = False


@dataclass(frozen=True)
class OpinionProgram:
    """Another program whose softmax is the second opinion: its name in the run, and the values of its classes."""

    name: str
    scheme: LabelScheme


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """What assessing needs of `runs/<experiment>`.

    Attributes:
        path: of the run's folder, or of its model file.
        name: of the run.
        networks: one a fold.
        preprocess: grid and normalisation that the networks expect.
        scheme: structures and the file values of the training cohort.
        modalities: that the run was trained on.
        spacing_rule: what holds where a header's pixdim and affine disagree.
        cohort, plan: names.
        cases: the error-map network's rows of the case tables of all loaded folds, see `case_table`.
        correction: the rule that suits the training masks which all networks held back; None leaves masks alone.
        n_held_back: how many masks that are; none in a run of an older version.
        features: of the run's own scans and masks, all folds, see `whqa.results.familiarity.read_features`.
        opinion_program: whose softmax the networks hear; None where the run's own segmenters speak, or nobody.
    """

    path: Path
    name: str
    networks: tuple[FoldNetwork, ...]
    preprocess: Preprocess
    scheme: LabelScheme
    modalities: tuple[str, ...]
    spacing_rule: SpacingRule
    cohort: str
    plan: str
    cases: pd.DataFrame
    features: tuple[FeatureRow, ...]
    correction: CorrectionRule | None
    n_held_back: int
    opinion_program: OpinionProgram | None = None
    _belts: dict[tuple[Any, ...], ConfidenceBelt | None] = field(default_factory=dict, init=False, repr=False)

    def belt(self, predicted: str, true: str, folds: tuple[int, ...], confidence: float) -> ConfidenceBelt | None:
        """Which truths these folds' predictions speak for, by two columns of `cases`; found once for all masks."""
        key = (predicted, true, folds, confidence)
        if key not in self._belts:
            self._belts[key] = belt_of_folds(OutOfFold.of(self.cases, predicted, true), folds, confidence)
        return self._belts[key]

    @property
    def head(self) -> str:
        """ "binary" or "label"."""
        return self.networks[0].module.head

    @property
    def folds(self) -> tuple[int, ...]:
        """Of the loaded networks."""
        return tuple(n.fold for n in self.networks)


def load_run(path: str | Path, folds: Sequence[int] | None = None) -> TrainedRun:
    """Load the error-map networks of a run.

    Args:
        path: `runs/<experiment>`, or a model file that `whqa export` made of it.
        folds: which; None takes all that are complete.

    Raises:
        InputError: no run, a fold that is not complete, a damaged or foreign file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        return _of_folder(path, folds)
    refuse_lacking(path, folds or ())
    with unpacked(path) as (directory, metadata):
        try:
            return replace(_of_folder(directory, folds), path=path, name=metadata["whqa"]["run"])
        except InputError as error:
            cause = str(error).replace(f"{directory}{os.sep}", "").replace(str(directory), "it").partition("; ")[0]
            raise InputError(f"{path}: not usable as a model ({cause}); {AGAIN}") from None


def _of_folder(directory: Path, folds: Sequence[int] | None) -> TrainedRun:
    record = folds_of_model(directory)
    complete = [k for k in range(len(record["folds"])) if is_complete(directory / "errormap" / str(k))]
    wanted = complete if folds is None else list(dict.fromkeys(folds))
    missing = [k for k in wanted if k not in complete]
    if missing or not wanted:
        which = f"fold {missing[0]} is" if missing else "every fold is"
        raise InputError(
            f"{directory}: the error-map network of {which} not complete; the same `whqa cv ...` again "
            "trains what is missing"
        )
    run_dirs = {k: directory / "errormap" / str(k) for k in wanted}
    refuse_damaged(run_dirs.values())
    scheme = _scheme(directory, record)
    configs = {k: _config(path) for k, path in run_dirs.items()}
    refuse_mixed_settings(list(run_dirs.values()))
    program = _opinion_program(run_dirs[wanted[0]], configs[wanted[0]], scheme)
    networks = tuple(_network(path, k, configs[k], scheme.n_classes, program) for k, path in run_dirs.items())
    held_back = read_gains(run_dirs.values(), scheme.keys)
    return TrainedRun(
        directory,
        as_named(directory).name,
        networks,
        _preprocess(directory, configs[wanted[0]]),
        scheme,
        tuple(sorted(set(record["modalities"].values()))),
        _spacing_rule(configs[wanted[0]]),
        str(record["cohort"]["name"]),
        str(record["plan"]),
        case_table(directory, wanted, scheme.keys),
        read_features(directory),
        harmless_by_structure(held_back, family_weights([mask.kind for mask in held_back])),
        len(held_back),
        program if networks[0].module.hears_opinion else None,
    )


def _scheme(directory: Path, record: Mapping[str, Any]) -> LabelScheme:
    keys = tuple(record["cohort"]["structures"])
    told = record.get("scheme")
    if told:
        try:
            return LabelScheme(
                str(told["name"]),
                {str(k): int(v) for k, v in told["values"].items()},
                {int(v): str(k) for v, k in told.get("aliases", {}).items()},
                frozenset(int(v) for v in told.get("ignored", [])),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(f"{directory / 'folds.json'}: its label scheme is not readable; train again") from None
    # runs of the first version did not keep the values
    for scheme in SCHEMES.values():
        if scheme.keys == keys:
            return scheme
    return LabelScheme("indices", {key: i + 1 for i, key in enumerate(keys)})


def _config(run_dir: Path) -> DictConfig:
    config, path = read_run_config(run_dir), run_dir / CONFIG
    if not isinstance(config.network, DictConfig):
        raise InputError(f"{path}: not readable as the settings of a run; {made_anew(run_dir)}")
    network = OmegaConf.to_container(config.network, resolve=False)
    assert isinstance(network, dict)
    target = network.pop("_target_", None)
    if target not in NETWORKS:
        raise InputError(f"{path}: network {target!r} is not one of whqa's ({', '.join(NETWORKS)}); it is not run")
    if any(str(key).startswith("_") for key in network) or "_target_" in str(network) or "${" in str(network):
        raise InputError(f"{path}: the network's settings must be plain values; it is not run")
    return config


def _spacing_rule(config: DictConfig) -> SpacingRule:
    data = config.get("data")
    told = data.get("spacing_rule") if isinstance(data, DictConfig) else None
    return next((rule for rule in get_args(SpacingRule) if rule == told), "pixdim")


def _preprocess(directory: Path, config: DictConfig) -> Preprocess:
    try:
        settings = OmegaConf.to_container(config.preprocess, resolve=False)
        assert isinstance(settings, dict)
        return Preprocess(**{str(k): v for k, v in settings.items()})
    except (OmegaConfBaseException, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise InputError(f"{directory}: settings of the preprocessing are not readable ({error})") from None


def _opinion_program(run_dir: Path, config: DictConfig, scheme: LabelScheme) -> OpinionProgram | None:
    """The program whose probabilities the run states, if it has no segmenters."""
    masks = config.get("masks")
    if masks is None:
        return None
    with reading(run_dir / CONFIG, "the settings of a run", made_anew(run_dir)):
        if not isinstance(masks, DictConfig) or "${" in OmegaConf.to_yaml(masks, resolve=False):
            raise ValueError("its masks are no plain values")
        stated: Any = OmegaConf.to_container(masks)
        settings = {name: ExternalSettings(**given) for name, given in (stated.get("external") or {}).items()}
        _, methods = choose_methods(stated.get("kinds"), settings)
    found = next((method for method in methods if method.probabilities is not None), None)
    return None if found is None else OpinionProgram(found.name, label_scheme(found.scheme or scheme))


def _network(
    run_dir: Path, fold: int, config: DictConfig, n_classes: int, program: OpinionProgram | None
) -> FoldNetwork:
    weights = trained_weights(run_dir)
    module = _error_map_module(weights, config, n_classes)
    module.calibration = _calibration(run_dir, config)
    trainer = config.get("trainer")
    bf16 = isinstance(trainer, DictConfig) and str(trainer.get("precision", "")).startswith("bf16")
    own = FoldNetwork(fold, module, weights.sha256, bf16)
    if not module.hears_opinion or program is not None:
        return own
    # the segmenter of the same fold: what it says of a new scan is an opinion like those learned
    place = run_dir.parent.parent / "segmenter" / run_dir.name
    refuse_damaged([place], trained_only=True)
    weights = trained_weights(place)
    # runs of older versions heard one in the test too, and do not state it
    plan, together = (OmegaConf.select(config, key) for key in ("masks.plan", "errormap.opinion_ensemble"))
    hears_all = plan == "nested" and together is True
    segmenter = _segmenter(weights, config, n_classes)
    return replace(own, segmenter=segmenter, segmenter_sha256=weights.sha256, hears_all=hears_all)


def _error_map_module(weights: TrainedWeights, config: DictConfig, n_classes: int) -> ErrorMapModule:
    with _fitting(weights):
        options = config.errormap
        head, inputs = str(options.get("head", "binary")), weights.inputs
        of_image = float(options.get("image_level_weight", 0.0))
        channels = in_channels(inputs, n_classes), out_channels(head, inputs, n_classes, of_image > 0)
        network = make(config.network, in_channels=channels[0], out_channels=channels[1])
        # runs of older versions do not state it, and have none
        if joins_mask(options.get("deep_mask", False), network, inputs):
            network.join(*mask_channels(inputs, n_classes))
        module = ErrorMapModule(
            network,
            n_classes=n_classes,
            inputs=inputs,
            hears_views=weights.hears_views,
            head=head,
            image_level_weight=of_image,
            total_steps=1,
            max_voxels=int(options.max_voxels),
        )
        module.load_state_dict(weights.state)
    return module.eval()


def _segmenter(weights: TrainedWeights, config: DictConfig, n_classes: int) -> SegmenterModule:
    with _fitting(weights):
        network = make(config.network, in_channels=1, out_channels=n_classes)
        segmenter = SegmenterModule(network, total_steps=1, max_voxels=int(config.segmenter.max_voxels))
        segmenter.load_state_dict(weights.state)
    return segmenter.eval()


def _fitting(weights: TrainedWeights) -> AbstractContextManager[None]:
    return reading(weights.path, "a checkpoint of this network", made_anew(weights.path.parents[1]))


def _calibration(run_dir: Path, config: DictConfig) -> Calibration:
    path = run_dir / CALIBRATION
    if not path.exists() and not config.errormap.get("validation_fraction"):
        # runs of the first versions wrote none where no case was held back for it
        return Calibration()
    return read_calibration(path, made_again(run_dir))
