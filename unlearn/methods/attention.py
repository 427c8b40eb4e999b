"""Attention transfer between networks of any architecture. Layers are found by name, and hooks read their outputs.

Maps of layers that give (N, H, W, C), as Swin's do, are turned to (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.classifier import Classifier
from unlearn.methods.channels import channel_axis

Pairs = tuple[
    tuple[str, str], ...
]  # the names of a teacher's layer and of the student's layer that is compared with it


@contextmanager
def watch_layers(model: Classifier, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of the named layers in the last forward pass inside the `with` block. The hooks are removed at its
    end.
    """
    outputs: dict[str, Tensor] = {}
    layers = dict(model.net.named_modules())
    handles = [layers[name].register_forward_hook(keep_output(name, outputs)) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def keep_output(name: str, outputs: dict[str, Tensor]):  # type: ignore[no-untyped-def]
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        maps = isinstance(output, Tensor) and output.dim() == 4
        outputs[name] = output.movedim(channel_axis(layer, output), 1) if maps else output

    return hook


def attention_loss(teacher_maps: list[Tensor], student_maps: list[Tensor]) -> Tensor:
    """Σ_l mean_n mean_hw ( f(A_l^T) / ||f(A_l^T)|| - f(A_l^S) / ||f(A_l^S)|| )²,  f(A) = mean_c A², a scalar.

    Each map is (N, C, H, W); teacher and student may differ in C. The paper writes the norm of the difference. Its
    code, like that of attention transfer (Zagoruyko & Komodakis 2017), takes the mean square, and so the published
    weight of 250 does.
    """
    pairs = zip(teacher_maps, student_maps, strict=True)
    return torch.stack([(attention(t) - attention(s)).square().mean() for t, s in pairs]).sum()


def attention(activations: Tensor) -> Tensor:
    """f(A) / ||f(A)||, (N, C, H, W) to (N, H W), in float32 or a wider type."""
    wide = torch.promote_types(activations.dtype, torch.float32)
    return F.normalize(activations.square().mean(1, dtype=wide).flatten(1))


def layer_pairs(teacher: Classifier, student: Classifier, chosen: str) -> Pairs:
    """The layers to compare.

    Args:
        chosen: names separated by commas, written `teacher_name=student_name` if they differ. Empty for the default:
            every ReLU if both networks have the same ones, else the last ReLU at each map size that both networks
            have. If one of them has none, as networks with other activations, the last layer with weights at each map
            size that both have.

    Raises:
        UsageError: a named layer does not exist, or two layers have maps of different sizes.
        UserError: the networks have no layers that can be compared.
    """
    ours, theirs = map_sizes(teacher), map_sizes(student)
    if chosen:
        pairs = [(t.strip(), (s or t).strip()) for t, _, s in (part.partition("=") for part in chosen.split(","))]
        for name, sizes, owner in [
            *((t, ours, "teacher") for t, _ in pairs),
            *((s, theirs, "student") for _, s in pairs),
        ]:
            if name not in sizes:
                raise UsageError(f"the {owner} has no layer '{name}' with maps to compare: it has {', '.join(sizes)}")
        for t, s in pairs:
            if ours[t] != theirs[s]:
                raise UsageError(
                    f"layer {t} has maps of {show(ours[t])}, layer {s} has maps of {show(theirs[s])}: name layers of "
                    "one size"
                )
        return tuple(pairs)
    chosen_by = relus if relus(teacher, ours) and relus(student, theirs) else weighted
    ours, theirs = chosen_by(teacher, ours), chosen_by(student, theirs)
    if ours == theirs and chosen_by is relus:
        pairs = [(name, name) for name in ours]
    else:
        last_t, last_s = ({size: name for name, size in sizes.items()} for sizes in (ours, theirs))
        pairs = [(name, last_s[size]) for size, name in last_t.items() if size in last_s]
    if not pairs:
        raise UserError(
            f"{teacher.card.architecture} and {student.card.architecture} share no comparable layer: name pairs of "
            "layers by --attention-layers TEACHER=STUDENT, or leave attention out with --attention 0"
        )
    return tuple(pairs)


def map_sizes(model: Classifier) -> dict[str, tuple[int, int]]:
    """The layers whose outputs are maps of more than one pixel, in the order of the forward pass, with their (H, W)."""
    names = [name for name, _ in model.net.named_modules() if name]
    training = model.training
    with watch_layers(model, names) as outputs, torch.no_grad():
        model.eval()(torch.zeros(1, *model.card.input_shape, device=model.mean.device))
    model.train(training)
    maps = {name: output for name, output in outputs.items() if isinstance(output, Tensor) and output.dim() == 4}
    return {name: (o.shape[2], o.shape[3]) for name, o in maps.items() if o.shape[2] * o.shape[3] > 1}


def relus(model: Classifier, sizes: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    layers = dict(model.net.named_modules())
    return {name: size for name, size in sizes.items() if isinstance(layers[name], nn.ReLU)}


def weighted(model: Classifier, sizes: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    layers = dict(model.net.named_modules())
    return {name: size for name, size in sizes.items() if any(True for _ in layers[name].parameters())}


def show(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
