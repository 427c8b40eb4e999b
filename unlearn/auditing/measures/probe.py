"""Linear probe: do the features before the last layer still tell the forgotten class from the others?

Definition: multinomial logistic regression on standardised, frozen penultimate features, fitted to n labelled images of
every class. The value is its accuracy on judged images of the forget class; with several forget classes, the highest
accuracy. Chance is the wrong reference, because the features of a retrained and even of a randomly initialised network
tell classes apart (57 % and 40 % on MNIST at n = 5, against 84 % under a masked logit).
Of a regressor it is a ridge regression of the target, fitted to n images per bin. The value is the share of judged
images of the forget range that it predicts to a bin's width.
Source: Alain & Bengio 2016 for linear probes; Golatkar et al. 2020 for probes as a test of unlearning.
Cost: one forward pass of two image sets and `draws` small regressions per model.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from synth.checkpoint.classifier import Classifier
from synth.checkpoint.masses import near
from unlearn.auditing.audit_settings import counts
from unlearn.auditing.bench import Bench
from unlearn.auditing.record.details import SHARES
from unlearn.auditing.record.record import Measurement
from unlearn.data import LabelledImages

DETAILS = {"probe": {"probe-[0-9]+": SHARES}}
FROM_REAL_FORGET = ("linear probe",)
ON_FIRST_SCREEN = (1, 5)  # labels per class


def measure(bench: Bench) -> list[Measurement]:
    source, settings = bench.source, bench.settings
    judge = bench.few(source.judge, settings.judge_images, "probe", "judge")
    judge = judge.select(bench.is_forgotten(judge.labels))
    images = bench.fewest_of(judge.labels)
    found = []
    for count in counts(settings.probe_labels):
        draws = [bench.few_rows(source.fit, count, "probe", count, draw) for draw in range(settings.draws)]

        def experiment(model: Classifier, draw: int, draws: list[Tensor] = draws) -> float:
            fit_ND, judge_MD = (bench.outputs(model, each).features for each in (source.fit, judge))
            return probed(bench, fit_ND[draws[draw]], source.fit.select(draws[draw]), judge_MD, judge)

        name = f"probe-{count}"
        values = bench.repeated(name, experiment, settings.draws)
        found.append(
            Measurement(
                name=name,
                family="probe",
                title=f"linear probe, {count} label{'s' * (count > 1)} per class",
                unit="%",
                more_left=1,
                resolution=bench.resolution(5.0, images),
                source=source.kind,
                readings={subject: bench.reading(rows, images) for subject, rows in values.items()},
                key=count in ON_FIRST_SCREEN,
                against_mask=True,
                repeated_by="--draws",
                details={"images": images},
            )
        )
    return found


def probed(bench: Bench, fit_ND: Tensor, fit: LabelledImages, judge_MD: Tensor, judge: LabelledImages) -> float:
    """The accuracy in %, on the judged images, of a probe that is fitted to the features of the N images."""
    if bench.target is not None:
        predicted = probe_number(fit_ND.numpy(), fit.values.numpy(), judge_MD.numpy())
        return bench.most_called(near(torch.from_numpy(predicted), judge.values, bench.target), judge.labels)
    called = probe(fit_ND.numpy(), fit.labels.numpy(), judge_MD.numpy())
    return bench.most_called(torch.from_numpy(called) == judge.labels, judge.labels)


def probe_number(fit_ND: np.ndarray, values_N: np.ndarray, judge_MD: np.ndarray) -> np.ndarray:
    """Fit a ridge regression to the features and targets of the first set, and return the targets (M,) that it predicts
    for the second.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 3, 6)))
    regression.fit(fit_ND.astype(np.float64), values_N.astype(np.float64))
    return np.asarray(regression.predict(judge_MD.astype(np.float64)))


def probe(fit_ND: np.ndarray, labels_N: np.ndarray, judge_MD: np.ndarray) -> np.ndarray:
    """Fit a regression to the features and labels of the first set, and return the classes (M,) that it calls the
    second.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the answers settle within 200 iterations
        regression.fit(fit_ND.astype(np.float64), labels_N)
    return regression.predict(judge_MD.astype(np.float64))
