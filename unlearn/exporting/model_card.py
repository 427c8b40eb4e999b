"""The model card of an exported student: what was forgotten, how, and what the audit found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synth.basics.markdown import escaped, rendered
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from unlearn.auditing.points.point_text import points_text
from unlearn.auditing.record.range_words import in_its_words
from unlearn.auditing.text import audit_text
from unlearn.report.places import is_of_points


def model_card(student: Classifier, record: Mapping[str, Any] | None, library: str, use: str) -> str:
    """The card as Markdown with the header that Hugging Face reads.

    Args:
        record: the student's audit, if there is one.
        library: the library that loads the student, such as timm.
        use: how the student is loaded, as Markdown.
    """
    card = student.card
    forgotten = ", ".join(escaped(name) for name in forgotten_names(card))
    return rendered(
        "unlearn.exporting",
        "model_card.md.j2",
        title=f"{escaped(card.architecture)}{f', unlearned: {forgotten}' if forgotten else ''}",
        library=library,
        forgotten=forgotten,
        classes=card.num_classes,
        facts=facts(student),
        use=use,
        outputs=outputs_in_words(card),
        mean=list(card.mean),
        std=list(card.std),
        verdict=escaped(in_its_words(record["verdict"]["sentence"], record)) if record else "",
        audit=summary(record).replace("```", "'''") if record else "",
        points=is_of_points(record) if record else "points" in card.training,
    )


def summary(record: Mapping[str, Any]) -> str:
    """An audit of classes or of points as text."""
    return points_text(record) if is_of_points(record) else audit_text(record)


def forgotten_names(card: ModelCard) -> list[str]:
    """The names of the classes that the checkpoint states as forgotten. What is no class of it is left out."""
    forget = card.training.get("forget")
    return [name for number, name in enumerate(card.class_names) if isinstance(forget, list) and number in forget]


def outputs_in_words(card: ModelCard) -> str:
    """What the network returns, where it is not one tensor with a logit per class."""
    wiring = card.wiring
    first, second = (escaped(name) for name in card.class_names[:2])
    words = {
        "logits": "the logits",
        "probabilities": "the probabilities of the classes",
        "one logit": f"one logit z, that of {second}; the logits of {first} and {second} are (0, z)",
        "one probability": f"one probability p, that of {second}; the probability of {first} is 1 - p",
    }[wiring.outputs]
    place = "" if wiring.logits_at is None else f", at {wiring.logits_at!r} of what it returns"
    return "" if (wiring.outputs, place) == ("logits", "") else f"The network gives {words}{place}."


def facts(student: Classifier) -> list[tuple[str, str]]:
    """What the checkpoint states about its making."""
    card, training = student.card, student.card.training
    found = {
        "architecture": escaped(card.architecture),
        "input": " x ".join(map(str, card.input_shape)) + " (channels x height x width)",
        "classes": escaped(", ".join(card.class_names[:20])) + (", ..." if card.num_classes > 20 else ""),
        "checkpoint": f"sha256 {student.digest}",
    }
    names = {"method": "unlearning method", "seed": "random seed", "teacher_sha256": "original: sha256"}
    found |= {words: escaped(str(training[name])) for name, words in names.items() if name in training}
    return list(found.items())
