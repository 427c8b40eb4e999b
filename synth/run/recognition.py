"""What `synth recognise` finds, as a table for a person and as JSON for a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synth.basics.tables import table

WIDEST = 15  # characters of a class or a network in the table


@dataclass(frozen=True)
class ByNetwork:
    """What another network recognises. The arrays have one value per image: 1, 0, or NaN if it lacks the class."""

    path: str
    sha256: str
    architecture: str
    classes: int  # of the run that it knows
    top1: np.ndarray
    top5: np.ndarray | None  # None for a network of at most five classes


@dataclass(frozen=True)
class ByTeacher:
    """What the run's own teacher recognises: 1 or 0 for each image and for each copy of it, by the copy's name."""

    path: str
    image: np.ndarray
    copies: Mapping[str, np.ndarray]
    counted: tuple[str, ...]  # the copies that count

    @property
    def under_copies(self) -> np.ndarray:
        """For each image, the share of the counted copies that are recognised."""
        return np.mean([self.copies[name] for name in self.counted], axis=0)

    @property
    def columns(self) -> Mapping[str, np.ndarray]:
        return {"image": self.image, **self.copies, "under_copies": self.under_copies}


@dataclass(frozen=True)
class Recognition:
    """How often networks name the images of a run by their class. `print` shows it as a table."""

    run: str
    complete: bool  # whether the run was
    class_names: tuple[str, ...]
    labels: np.ndarray  # of the images, (N,)
    networks: tuple[ByNetwork, ...]
    teacher: ByTeacher | None

    def to_json(self) -> dict[str, Any]:
        """All shares, within 0 and 1, over all images and per class. None where a network lacks the class."""
        everything = np.ones(len(self.labels), dtype=bool)
        facts = ({"path": n.path, "sha256": n.sha256, "architecture": n.architecture} for n in self.networks)
        networks = [
            fact | {"classes_in_common": n.classes} | self.of_network(n, everything)
            for fact, n in zip(facts, self.networks, strict=True)
        ]
        teacher = self.teacher and {
            "path": self.teacher.path,
            "counted_copies": list(self.teacher.counted),
            **self.of_teacher(self.teacher, everything),
        }
        per_class = [
            {"class": label, "name": self.class_names[label], "images": int(rows.sum())}
            | {"networks": [self.of_network(n, rows) for n in self.networks]}
            | {"teacher": self.teacher and self.of_teacher(self.teacher, rows)}
            for label, rows in self.by_class()
        ]
        return {
            "run": self.run,
            "complete": self.complete,
            "images": len(self.labels),
            "networks": networks,
            "teacher": teacher,
            "classes": per_class,
        }

    def by_class(self) -> list[tuple[int, np.ndarray]]:
        """Each class of the images with the mask of its images, (N,)."""
        return [(int(label), self.labels == label) for label in np.unique(self.labels)]

    def of_network(self, network: ByNetwork, rows: np.ndarray) -> dict[str, float | None]:
        top5 = None if network.top5 is None else share(network.top5[rows])
        return {"top1": share(network.top1[rows]), "top5": top5}

    def of_teacher(self, teacher: ByTeacher, rows: np.ndarray) -> dict[str, float | None]:
        return {name: share(values[rows]) for name, values in teacher.columns.items()}

    def __str__(self) -> str:
        """One line per class, and one for all images, in per cent."""
        everything = np.ones(len(self.labels), dtype=bool)
        lines = [
            *((self.class_names[label][:WIDEST], rows) for label, rows in self.by_class()),
            ("all", everything),
        ]
        header = ["recognised, %", "images"]
        for name in names_of([n.path for n in self.networks]):
            header += [f"{name} top-1", "top-5"]
        if self.teacher:
            header += ["teacher", *self.teacher.copies, "copies"]
        return table(header, [[name, f"{int(rows.sum()):,}", *self.cells(rows)] for name, rows in lines])

    def cells(self, rows: np.ndarray) -> list[str]:
        found = [value for n in self.networks for value in self.of_network(n, rows).values()]
        if self.teacher:
            found += self.of_teacher(self.teacher, rows).values()
        return [per_cent(value) for value in found]


def share(values: np.ndarray) -> float | None:
    """The mean of the values that are there. None if there is none."""
    there = values[~np.isnan(values)]
    return round(float(there.mean()), 6) if len(there) else None


def per_cent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def names_of(paths: Sequence[str]) -> list[str]:
    """A short name for each network: its file's name, with a number if several have the same."""
    short = [path.replace("\\", "/").rpartition("/")[2].removesuffix(".safetensors")[:WIDEST] for path in paths]
    twins = Counter(short)
    return [name if twins[name] == 1 else f"{name} ({n})" for n, name in enumerate(short, 1)]
