"""The same numbers on 1, 2 and 3 processes, with repeated cases and with ranks that have none."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
import torch.distributed
from scipy import stats
from sklearn.metrics import average_precision_score

from whqa.metrics.over_cases import (
    ErrorMapAUPRC,
    ErrorMapDice,
    HausdorffDistance95,
    QIAccuracyCorrelation,
    SegmentationDice,
)
from whqa.metrics.per_case import CaseTable
from whqa.metrics.verdict_row import JUDGE_COLUMNS, judge
from whqa.quality import ErrorPrediction, JudgedCase

STRUCTURES = ("lv", "rv")
SPACING = (1.0, 2.0, 1.5)
SHARES = {
    2: {
        "3 cases on 2 ranks, padded": [[0, 2], [1, 0]],
        "5 cases on 2 ranks, padded": [[0, 2, 4], [1, 3, 0]],
        "1 case on 2 ranks, padded": [[0], [0]],
        "5 cases on 2 ranks, uneven": [[4, 0, 2], [3, 1]],
        "second rank empty": [[0, 1, 2, 3, 4], []],
        "first rank empty": [[], [0, 1, 3]],
    },
    3: {
        "4 cases on 3 ranks, padded": [[0, 3], [1, 0], [2, 1]],
        "1 case on 3 ranks, padded": [[0], [0], [0]],
        "one rank empty": [[0, 1], [], [3]],
        "two ranks empty": [[], [], [4, 3, 2, 1, 0]],
        "nobody has a case": [[], [], []],
    },
}


def make_case(index: int) -> tuple[JudgedCase, ErrorPrediction]:
    rng = np.random.default_rng(index)
    reference = torch.from_numpy(rng.integers(0, 3 if index != 3 else 2, (6, 7, 5)))
    wrong = torch.from_numpy(rng.random((6, 7, 5)) < 0.1 + 0.1 * index)
    mask = torch.where(wrong, (reference + 1) % 3, reference) if index != 2 else reference.clone()
    probability = torch.from_numpy(np.round(rng.random((6, 7, 5)) * 0.6 + 0.3 * wrong.numpy(), 2)).float()
    predicted = probability >= 0.5 if index != 2 else torch.zeros_like(wrong)
    case = JudgedCase(str(index), "final", torch.zeros(6, 7, 5), mask, reference, None, SPACING)
    return case, ErrorPrediction(probability, predicted)


def evaluate(indices: list[int]) -> dict[str, list[float]]:
    """What a callback does: one update a case, compute at the end."""
    table = CaseTable(JUDGE_COLUMNS)
    dice, auprc = ErrorMapDice(), ErrorMapAUPRC()
    correlation = QIAccuracyCorrelation(constant=0.75)
    structures, surface = SegmentationDice(STRUCTURES), HausdorffDistance95(STRUCTURES)
    for index in indices:
        case, prediction = make_case(index)
        row = judge(case, prediction)
        table.update(torch.tensor(index), row)
        dice.update(index, prediction.error_map, case.error)
        auprc.update(index, prediction.probability, case.error)
        correlation.update(index, torch.tensor(row["qi_volume"]), row["acc_volume"])
        structures.update(index, case.mask, case.reference)
        surface.update(index, case.mask, case.reference, case.spacing)
    found = {f"table/{name}": values.tolist() for name, values in table.compute().items()}
    scalars = {"dice": dice.compute(), "auprc": auprc.compute()}
    for prefix, metric in (("qi", correlation), ("seg", structures), ("hd", surface)):
        scalars |= {f"{prefix}/{name}": value for name, value in metric.compute().items()}
    return found | {name: [float(value)] for name, value in scalars.items()}


def reference_numbers(indices: list[int]) -> dict[str, float]:
    """The scalars from numpy, scipy and scikit-learn only."""
    rows = []
    for index in sorted(set(indices)):
        case, prediction = make_case(index)
        mask, truth = case.mask.numpy(), case.reference.numpy()
        error, called, p = mask != truth, prediction.error_map.numpy(), prediction.probability.numpy()
        counts = np.array([(error & called).sum(), error.sum(), called.sum()])
        row = {"dice": 1.0 if counts.sum() == 0 else 2 * counts[0] / (counts[1] + counts[2])}
        row["auprc"] = average_precision_score(error.ravel(), p.ravel()) if error.any() else math.nan
        row |= {"acc": (mask == truth).mean(), "qi": 1 - called.mean()}
        for i, key in enumerate(STRUCTURES, start=1):
            row[key] = 2 * ((mask == i) & (truth == i)).sum() / ((mask == i).sum() + (truth == i).sum())
        rows.append(row)
    column = {name: np.array([r[name] for r in rows]) for name in rows[0]}
    found = {
        "dice": column["dice"].mean(),
        "auprc": np.nanmean(column["auprc"]) if not np.isnan(column["auprc"]).all() else math.nan,
        "qi/mae": np.abs(column["qi"] - column["acc"]).mean(),
        "qi/mae_constant": np.abs(column["acc"] - 0.75).mean(),
        "seg/dice_lv": column["lv"].mean(),
        "seg/dice_rv": column["rv"].mean(),
        "seg/dice": np.mean([column["lv"], column["rv"]]),
    }
    enough = len(rows) >= 3
    found["qi/pcc"] = stats.pearsonr(column["qi"], column["acc"])[0] if enough else math.nan
    found["qi/spearman"] = stats.spearmanr(column["qi"], column["acc"])[0] if enough else math.nan
    return found


def worker(rank: int, folder: str) -> None:
    warnings.simplefilter("error")
    # torchmetrics says so on a first rank without cases, where it is the truth
    warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
    torch.set_num_threads(1)
    for world in (w for w in SHARES if rank < w):
        store = f"file://{folder}/store{world}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
        found = {name: evaluate(shares[rank]) for name, shares in SHARES[world].items()}
        torch.distributed.destroy_process_group()
        with open(f"{folder}/{world}-{rank}.json", "w", encoding="utf-8") as file:
            json.dump(found, file)


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory: pytest.TempPathFactory):
    """World size -> one result a rank; starting processes is slow, so each is started once for everything."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(worker, args=(str(folder),), nprocs=max(SHARES))
    return {
        world: [json.loads((folder / f"{world}-{rank}.json").read_text()) for rank in range(world)] for world in SHARES
    }


def assert_equal(found: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize(("world", "name"), [(world, name) for world, shares in SHARES.items() for name in shares])
def test_every_rank_has_the_numbers_of_one_process(by_rank, world: int, name: str) -> None:
    indices = sorted({i for share in SHARES[world][name] for i in share})
    with warnings.catch_warnings():
        if not indices:
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
        alone = evaluate(indices)
    assert alone["table/index"] == indices
    for result in by_rank[world]:
        assert_equal(result[name], alone)


@pytest.mark.parametrize("indices", [[0, 1, 2, 3, 4], [4, 1, 0], [3, 0], [0], [2], [1, 0, 1, 4, 0]])
def test_one_process_has_the_numbers_of_numpy(indices: list[int]) -> None:
    found = evaluate(indices)
    for name, value in reference_numbers(indices).items():
        assert found[name] == [pytest.approx(value, abs=1e-6, nan_ok=True)], name


def test_without_any_case_all_is_undefined(by_rank) -> None:
    found = by_rank[3][0]["nobody has a case"]
    assert found["table/index"] == []
    scalars = {name: values[0] for name, values in found.items() if not name.startswith("table/")}
    assert scalars.pop("hd/hd95_missed") == 0
    assert all(math.isnan(value) for value in scalars.values())
