"""Layer-wise linear probe: how deep in the network do features tell the forgotten class from the others?

Definition: as the linear probe, with 5 labelled images of every class, but on the outputs of earlier layers, averaged
over pixels: the layers at a quarter, a half and three quarters of those that have weights, in the order of the forward
pass. A student that keeps the original's early layers has the original's values there. A network that never saw the
class has high values, too, because early features are general. So these values are shown beside the retrained models'
and are not judged.
Source: Alain & Bengio 2016 for probes of every layer; Goel et al. 2022 for models whose early layers are kept.
Cost: one forward pass of two small image sets and 3 x `draws` small regressions per model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synth.basics.out_of_memory import by_rows
from synth.checkpoint.classifier import Classifier, rows_at_once, to_unit
from unlearn.auditing.bench import Bench, check_answers
from unlearn.auditing.measures.probe import probed
from unlearn.auditing.record.details import IMAGES, details
from unlearn.auditing.record.record import ORIGINAL, Measurement
from unlearn.methods.channels import channel_axis
from unlearn.methods.early_layers import order_of_calls

LAYER = {"type": "string", "maxLength": 200, "description": "the original's layer at this depth"}
DETAILS = {"layers": {"layers-[0-9]+": details(images=IMAGES, layer=LAYER)}}
FROM_REAL_FORGET = ("layer-wise linear probe",)
DEPTHS = (25, 50, 75)  # per cent of the layers with weights
LABELS = 5  # per class


def measure(bench: Bench) -> list[Measurement]:
    source, settings = bench.source, bench.settings
    judge = bench.few(source.judge, settings.judge_images, "probe", "judge")
    judge = judge.select(bench.is_forgotten(judge.labels))
    draws = [bench.few_rows(source.fit, LABELS, "layers", draw) for draw in range(settings.draws)]
    used = torch.cat(draws).unique()
    fit = source.fit.select(used)
    rows = [torch.searchsorted(used, draw) for draw in draws]
    images = bench.fewest_of(judge.labels)

    def experiment(model: Classifier, repeat: int) -> Tensor:
        """The accuracies (depths, draws) in per cent."""
        layers = layers_at(model)
        fitted, judged = (outputs_of(model, layers, each.images) for each in (fit, judge))
        found = torch.zeros(len(DEPTHS), len(rows), dtype=torch.double)
        for depth, (fit_ND, judge_MD) in enumerate(zip(fitted, judged, strict=True)):
            for draw, chosen in enumerate(rows):
                found[depth, draw] = probed(bench, fit_ND[chosen], fit.select(chosen), judge_MD, judge)
        return found

    values = bench.repeated("layers", experiment, 1)
    names = layers_at(bench.subjects[ORIGINAL][0])
    return [
        Measurement(
            name=f"layers-{depth}",
            family="layers",
            title=f"linear probe at {depth} % of the depth, {LABELS} labels per class",
            unit="%",
            more_left=1,
            resolution=bench.resolution(5.0, images),
            source=source.kind,
            readings={
                subject: bench.reading([model[0][place].tolist() for model in models], images)
                for subject, models in values.items()
            },
            quality=True,
            repeated_by="--draws",
            details={"images": images, "layer": names[place][:200]},
        )
        for place, depth in enumerate(DEPTHS)
    ]


def layers_at(model: Classifier) -> list[str]:
    """The layer at each of the depths: of those with weights of their own that give maps, in the order in which they
    end.
    """
    _, ended = order_of_calls(model)
    modules = dict(model.net.named_modules())
    weighted = [
        path
        for path, _ in sorted(ended.items(), key=lambda item: item[1])
        if any(True for _ in modules[path].parameters(recurse=False)) and not isinstance(modules[path], nn.Embedding)
    ]
    return [weighted[max(0, -(-depth * len(weighted) // 100) - 1)] for depth in DEPTHS]


@torch.no_grad()
def outputs_of(model: Classifier, layers: list[str], images: Tensor) -> list[Tensor]:
    """What each of the layers gives for N images, (N, D): averaged over pixels or tokens. On the CPU.

    Raises CannotRunError if a model answers with NaN or infinity.
    """
    seen: dict[str, Tensor] = {}

    def features(rows: Tensor) -> Tensor:
        check_answers(model(to_unit(rows.to(model.mean.device))))
        return torch.cat([seen[path] for path in layers], dim=1)

    handles = [
        model.net.get_submodule(path).register_forward_hook(
            lambda module, inputs, given, path=path: seen.update({path: pooled(module, given)})
        )
        for path in layers
    ]
    try:
        found = by_rows(features, rows_at_once(model, images), images)
        widths = [seen[path].shape[1] for path in layers]
    finally:
        for handle in handles:
            handle.remove()
    check_answers(found)
    return list(found.split(widths, dim=1))


def pooled(layer: nn.Module, given: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a layer gave for N images, (N, D), on the CPU: averaged over pixels or tokens. Of several tensors the first
    counts: attention gives its weights, too.
    """
    flat = (given if isinstance(given, Tensor) else given[0]).float()
    if isinstance(layer, nn.MultiheadAttention) and not layer.batch_first:
        flat = flat.transpose(0, 1)
    at = channel_axis(layer, flat)
    return flat.mean([axis for axis in range(1, flat.dim()) if axis != at]).cpu() if flat.dim() > 2 else flat.cpu()
