"""Real images with labels, for training teachers and for evaluation. The unlearning methods never come here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from synth.basics.errors import UsageError, UserError
from synth.basics.progress import Say, counted
from synth.checkpoint.card import ModelCard
from synth.checkpoint.class_choice import class_words
from synth.checkpoint.class_matching import numbered, simple
from synth.checkpoint.file import read_card
from synth.checkpoint.masses import bins_of
from synth.checkpoint.target import Target
from synth.checkpoint.target_options import TargetOptions
from unlearn import data_sets
from unlearn.data_sets.reading.data_set import Loaded
from unlearn.data_sets.reading.decode_images import decode_images
from unlearn.data_sets.reading.find_images import find_images
from unlearn.data_sets.reading.found import listed
from unlearn.data_sets.reading.from_targets import find_targets
from unlearn.data_sets.reading.pixels import MODES
from unlearn.real_images import note_real_images

SIDE = 32  # pixels that a folder's images are resized to without a checkpoint and without --image-size


@dataclass(frozen=True, eq=False)  # a set of images is a key of the audit's caches
class LabelledImages:
    """Images uint8 (N, C, H, W) and their classes int64 (N,). `natural`: mirrored images are plausible images.

    A regressor's images have `targets` float32 (N,) in the unit of their `target`, and their classes are its bins.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    natural: bool
    all_classes: bool = True  # `class_names` has also the classes that have no image
    targets: Tensor | None = None
    target: Target | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def values(self) -> Tensor:
        """The targets of a regressor's images, (N,)."""
        assert self.targets is not None, "images of a regressor"
        return self.targets

    def select(self, keep: Tensor | slice) -> LabelledImages:
        """The images that a mask, a list of rows or a slice names."""
        targets = None if self.targets is None else self.targets[keep]
        return replace(self, images=self.images[keep], labels=self.labels[keep], targets=targets)

    def without(self, classes: tuple[int, ...]) -> LabelledImages:
        """The images of all other classes."""
        return self.select(~torch.isin(self.labels, torch.tensor(classes, dtype=torch.long)))


def target_of(name: str, options: TargetOptions, like: Path | None) -> Target | None:
    """The target that a training's options ask for. A named data set has its own.

    Raises UsageError where they do not fit the data.
    """
    found = data_sets.find(name)
    if found is not None and (found.target is None) == (options.task == "regression"):
        kind = "classification" if found.target is None else "regression"
        raise UsageError(f"{name} is data for {kind}: give --task {kind}, or other --data")
    if like is not None:
        if options.given:
            raise UsageError(f"{options.given[0]} has no effect with --like, whose target is taken: leave it out")
        return read_card(like).target
    return options.target(found.target if found else None)


def quiet(line: str) -> None:
    """For callers that show no lines."""


@dataclass(frozen=True)
class DataSource:
    """A data set as the command line names it; see `load_images`. `say` gets a line on what was read and skipped.

    `target` is that of a regressor; a checkpoint's own comes before it.
    """

    name: str
    root: Path | None = None
    download: bool = False
    image_size: int | None = None  # None: that of the checkpoint, or 32
    say: Say = quiet
    target: Target | None = None

    def load(self, split: str, card: ModelCard | None = None) -> LabelledImages:
        """The images of the split, in the shape that the checkpoint with this card takes."""
        shape = (3, SIDE, SIDE) if card is None else card.input_shape
        if self.image_size is not None:
            shape = (shape[0], self.image_size, self.image_size)
        target = self.target if card is None else card.target
        return load_images(self.name, split, self.root, self.download, shape, self.say, target)

    def side(self, card: ModelCard) -> int:
        """The side that a path's images are resized to; a named data set has its own, whatever this says."""
        return self.image_size or (SIDE if data_sets.find(self.name) else card.input_shape[-1])


def load_images(
    name: str,
    split: str,
    root: Path | None = None,
    download: bool = False,
    shape: tuple[int, int, int] = (3, SIDE, SIDE),
    say: Say = quiet,
    target: Target | None = None,
) -> LabelledImages:
    """The `train` or `test` images of a data set. Each call counts its images (`unlearn.real_images`).

    Args:
        name: one of `unlearn.data_sets.names()`, or the path of a folder or file (docs/data.md), such as a folder with
            train/CLASS/*.png and test/CLASS/*.png. A class whose images are gone has an empty folder.
        root: the folder that holds data sets, in torchvision's layout; `data` by default.
        download: fetch the files of the data set if they are missing.
        shape: channels, height and width that a path's images are converted to; a named data set has a shape of its
            own.
        say: gets one line on what was read from a path, and what was skipped.
        target: of a regressor. A path then needs a table of targets. A named data set has a target of its own, and only
            the bins are taken from this one.

    Raises:
        UsageError: there is no such data set, or networks with other images than grey and colour ones.
        UserError: its files are missing or damaged.
    """
    data_set = data_sets.find(name)
    if data_set is not None:
        loaded = data_set.load(split, root or Path("data"), download)
        if data_set.target is not None:
            found = with_targets(name, loaded, data_set.target, target)
        else:
            images, labels, class_names = checked(name, loaded)
            found = LabelledImages(images, labels, tuple(class_names), data_set.natural)
    elif target is not None and ("/" in name or Path(name).exists()):
        found = load_targets(Path(name), split, shape, say, target)
    elif "/" in name or Path(name).exists():
        found = load_path(Path(name), split, shape, say)
    else:
        raise UsageError(
            f"unknown data '{name}': choose {', '.join(data_sets.names())}, "
            "or the path of a folder with train/ and test/"
        )
    note_real_images(len(found))
    return found


def load_path(path: Path, split: str, shape: tuple[int, int, int], say: Say) -> LabelledImages:
    """The images of one split of a folder or file."""
    if shape[0] not in MODES:
        raise UsageError(f"{path} has grey or colour images, but the checkpoint takes {shape[0]} channels")
    found = find_images(path, split)
    images, labels, notes = decode_images(found, shape)
    there = counted(len(set(labels.tolist())), "class", "es")
    done = f" ({listed(notes)})" if notes else ""
    skipped = f"; skipped {listed(found.skipped)}" if found.skipped else ""
    say(f"read {counted(len(labels), 'image')} of {there} from {found.place}{done}{skipped}")
    return LabelledImages(images, labels, tuple(found.class_names), natural=True, all_classes=found.all_classes)


def load_targets(path: Path, split: str, shape: tuple[int, int, int], say: Say, target: Target) -> LabelledImages:
    """The images and targets of one split of a folder or CSV file. They are not mirrored: that may change a target."""
    found = find_targets(path, split, target)
    images, texts, notes = decode_images(found, shape)
    values = torch.tensor([float(text) for text in found.class_names])[texts]
    done = f" ({listed(notes)})" if notes else ""
    say(f"read {counted(len(values), 'image')} with a target from {found.place}{done}")
    return of_regressor(images, values, target)


def with_targets(name: str, loaded: Loaded, own: Target, asked: Target | None) -> LabelledImages:
    """A data set's images, with the asked bins of its own target. Raises UsageError if another target is asked for."""
    images, values, _ = loaded
    if not torch.isfinite(values).all():
        raise UserError(f"the data set '{name}' gives targets that are not finite: its load function must not")
    if asked is None:
        return of_regressor(images, values, own)
    if (asked.name, asked.unit) != (own.name, own.unit):
        raise UsageError(f"{name} has the target {own.words}, not {asked.words}: name the data of that target")
    return of_regressor(images, values, asked)


def of_regressor(images: Tensor, values: Tensor, target: Target) -> LabelledImages:
    return LabelledImages(
        images, bins_of(values, target), target.bin_names, natural=False, targets=values, target=target
    )


def checked(name: str, loaded: Loaded) -> Loaded:
    """What a data set loaded. Raises UserError if it is not as `Loaded` says: other packages may have written it."""
    images, labels, class_names = loaded
    squares = images.dim() == 4 and images.shape[1] in (1, 3) and images.shape[2] == images.shape[3]
    if images.dtype != torch.uint8 or not squares:
        raise UserError(
            f"the data set '{name}' gives {images.dtype} images {list(images.shape)}: "
            "its load function must give uint8 images (N, 1 or 3 channels, side, side)"
        )
    if labels.dtype != torch.long or labels.shape != images.shape[:1]:
        raise UserError(
            f"the data set '{name}' gives {labels.dtype} labels {list(labels.shape)} for {len(images)} images: "
            "its load function must give one int64 class number per image"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(class_names):
        raise UserError(
            f"the data set '{name}' gives labels from {int(labels.min())} to {int(labels.max())} "
            f"for {len(class_names)} class names: its load function must number the classes from 0 and name each"
        )
    return loaded


def check_data(
    card: ModelCard,
    data: LabelledImages,
    checkpoint: Path,
    data_name: str,
    gone: tuple[int, ...] = (),
    say: Say = quiet,
) -> LabelledImages:
    """The images, with labels that number the classes in the checkpoint's order.

    Classes are matched by name. If the names on one side are only numbers, they are positions in the other side's
    order. Capital letters, spaces, hyphens and underscores may differ.

    Args:
        gone: classes that the data may lack, as after an erasure. The data then lacks their names too.
        say: gets one line if the classes are not matched by equal names in the same order.

    Raises:
        UsageError: the checkpoint takes images of another shape, or has other classes.
    """
    if (card.target is None) != (data.target is None):
        raise UsageError(
            f"{checkpoint} is a model for {card.kind}, and {data_name} is data for "
            f"{'classification' if data.target is None else 'regression'}: name the data that it was made for"
        )
    ours, theirs = card.class_names, data.class_names
    order, how = matched(ours, theirs)
    unknown = sorted(set(theirs).difference(order))
    missing = [number for number, name in enumerate(order) if name not in theirs and number not in gone]
    same_shape = card.input_shape == tuple(data.images.shape[1:])
    if not same_shape or (data.all_classes and (missing or unknown) and len(ours) != len(theirs)):
        cure = "name the data that the checkpoint was made for"
        if same_shape and len(theirs) < len(ours):
            cure += ", with an empty folder for each class whose images are gone"
        raise UsageError(
            f"{checkpoint} takes images {list(card.input_shape)} of {len(ours)} classes, but "
            f"{data_name} has images {list(data.images.shape[1:])} of {len(theirs)} classes: {cure}"
        )
    if unknown:
        raise UsageError(
            f"{checkpoint} has no class '{unknown[0]}', which {data_name} has: name the data that the checkpoint "
            f"was made for, or import it again with {names_option(theirs)} if its outputs are in that order"
        )
    if ours == theirs:
        return data
    if how:
        say(f"{data_name}: {how}")
    if missing:
        say(f"{data_name}: no image of {class_words(missing, ours)}")
    return reordered(data, order, theirs if numbered(ours) and not numbered(theirs) else ours)


def matched(ours: Sequence[str], theirs: Sequence[str]) -> tuple[Sequence[str], str]:
    """The checkpoint's classes in its order, by their names in the data; and in words how they were matched.

    Raises UsageError if the checkpoint has a name twice.
    """
    if set(theirs) <= set(ours):
        refuse_twins(ours, theirs)
        in_order = [name for name in ours if name in theirs] == list(theirs)
        return ours, "" if in_order else "its classes are matched to the checkpoint's by name, not by their order"
    if numbered(theirs) and not numbered(ours):
        last = len(ours) - 1
        how = f"its numbers are the checkpoint's classes 0 '{ours[0]}' to {last} '{ours[last]}'"
        return tuple(map(str, range(len(ours)))), how
    if numbered(ours) and not numbered(theirs) and len(ours) == len(theirs):
        last = len(ours) - 1
        how = (
            f"the checkpoint has no names: its classes 0 to {last} are '{theirs[0]}' to '{theirs[last]}', in that order"
        )
        return theirs, how
    by_spelling = {simple(name): name for name in theirs}
    if len(by_spelling) == len(theirs) and set(by_spelling) <= set(map(simple, ours)):
        refuse_twins(tuple(map(simple, ours)), by_spelling)
        how = "its classes are matched by name, whatever their capital letters, spaces and hyphens"
        return tuple(by_spelling.get(simple(name), name) for name in ours), how
    return ours, ""


def refuse_twins(ours: Sequence[str], theirs: Iterable[str]) -> None:
    """Raise UsageError if two of the checkpoint's classes have one of the names, and the data could mean either."""
    twins = [name for name, count in Counter(ours).items() if count > 1 and name in theirs]
    if twins and list(ours) != list(theirs):
        raise UsageError(
            f"several classes of the checkpoint are called '{twins[0]}': name the data's classes by number, 0 to "
            f"{len(ours) - 1}"
        )


def reordered(data: LabelledImages, order: Sequence[str], class_names: Sequence[str]) -> LabelledImages:
    """The images with new labels: the position of each class's name in `order`."""
    positions = torch.tensor([list(order).index(name) for name in data.class_names])
    return replace(data, labels=positions[data.labels], class_names=tuple(class_names), all_classes=True)


def names_option(class_names: Sequence[str]) -> str:
    """The option of `unlearn import` that gives these names. One with a comma or a space has to come from a file."""
    if not any(char == "," or char.isspace() for name in class_names for char in name):
        return f"--classes {shortened(class_names)}"
    return "--classes-file, a file with the names of its classes, one per line,"


def shortened(class_names: Sequence[str], limit: int = 10) -> str:
    return ",".join(class_names[:limit]) + (",..." if len(class_names) > limit else "")


def normalisation(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images (N, C, S, S), for pixels in [0, 1], to four digits."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.double)  # how often each channel has each value
    for part in images.split(1000):  # of the floats of all images, memory would have to hold 16 times their own bytes
        for channel, values in enumerate(part.transpose(0, 1)):
            counts[channel] += torch.bincount(values.flatten(), minlength=256)
    value, total = torch.arange(256, dtype=torch.double) / 255, counts.sum(1)
    mean = counts @ value / total
    squares = (counts * (value - mean[:, None]).square()).sum(1)
    std = (squares / (total - 1)).sqrt().clamp_min(1e-3)
    return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in std.tolist())
