"""The page's sections that show what was measured. Each is None where there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unlearn.audit.judgement.controls import self_check
from unlearn.audit.record.record import MODEL, ORIGINAL, RETRAINED, SUBJECTS
from unlearn.audit.text import number
from unlearn.report.page import charts
from unlearn.report.page.cells import Record, classes_of, finding_of, reading_cell, title_of
from unlearn.report.page.markup import Content, Markup, chart, element, folded, picture, section, table

LARGEST_MATRIX = 20  # classes


def known_answers(record: Record) -> Markup | None:
    if not record["controls"]:
        return None
    rows = [[c["subject"], c["conclusion"], "; ".join(c["reasons"])] for c in record["controls"]]
    text = "An audit is worth what it says of models whose answer is known. The same rules, on the same numbers:"
    failed = self_check(record["controls"])
    answer = element("p", element("strong", failed)) if failed else Markup("")
    return section("Does the audit itself work?", element("p", text), answer,
                   table("The same rules on known models", ["model", "conclusion", "because"], rows, words=True))  # fmt: skip


def all_measures(record: Record) -> Markup:
    subjects = [s for s in SUBJECTS if any(s in m["readings"] for m in record["measurements"])]
    rows: list[list[Content]] = []
    for m in record["measurements"]:
        finding = finding_of(m, record)
        status = "not judged" if finding is None else finding["status"]
        if finding and finding["interval"]:
            low, high = finding["interval"]
            status += f" [{number(low)}, {number(high)}]"
        rows.append([title_of(m), *(reading_cell(m, s, record) for s in subjects), status])
    missing = [[n["name"], n["why"], n["cure"]] for n in record["not_run"]]
    return section(
        "Every measure",
        table("Mean and interval of its mean; last column: against the retrained model's interval",
              ["measure", *subjects, "against retrained"], rows),
        table("What could not be run", ["what", "why", "what would make it possible"], missing, words=True)
        if missing else element("p", "Nothing was left out."),
    )  # fmt: skip


def relearning(record: Record) -> Markup | None:
    found = [m for m in record["measurements"] if m["name"].startswith("relearn-")]
    if not found:
        return None
    rows: list[list[Content]] = []
    subjects = [s for s in SUBJECTS if any(s in m["details"]["curves"] for m in found)]
    for m in found:
        curves, index = m["details"]["curves"], m["details"]["anamnesis"]
        rows.append([m["title"], *(steps_cell(curves.get(s)) for s in subjects), ratio(index) if index else None])
    text = (
        "Copies of each model were trained on a few images, and asked for the class again and again: once on retain images "
        "alone, else on images of every class, with the forget class's rows of the last layer drawn anew in every model. Lines "
        "are means over repeats, bands reach from the lowest to the highest; an open arrow at the end says that some runs were "
        "cut off below the target, the thin horizontal line."
    )
    return section(
        "How quickly the class comes back", element("p", text),
        element("div", *(chart(charts.relearning(m), m["title"]) for m in found), class_="charts"),
        table("Steps to the target, of those in the charts, and the Anamnesis Index, this model's against the retrained model's "
              "(ideal 1)", ["relearning", *subjects, "index"], rows),
    )  # fmt: skip


def steps_cell(curves: Sequence[Record] | None) -> str | None:
    """The mean of the steps to the target; at least so many where some runs were cut off."""
    if not curves:
        return None
    cut, mean = sum(c["censored"] for c in curves), sum(c["reached"] for c in curves) / len(curves)
    return f"{'≥ ' if cut else ''}{mean:.1f}" + (f" ({cut} of {len(curves)} runs cut off)" if cut else "")


def ratio(index: Record) -> str:
    if index["index"] is None or index["bound"] == "unknown":
        return "unknown"
    return f"{'' if index['bound'] == 'exact' else index['bound'] + ' '}{index['index']:.2f}"


def images(record: Record, pictures: Mapping[str, bytes]) -> Markup | None:
    """Synthesised images before, and what each model gives back when it is inverted."""
    shown = []
    if "synthesised.png" in pictures:
        alt = "Synthesised images of each class, from the shards, a row a class"
        shown.append(picture(pictures["synthesised.png"], alt, "Before: what the original gave, from the shards"))
    measured = {m["name"]: m["readings"] for m in record["measurements"]}
    for subject in SUBJECTS:
        name = f"resurrection-{subject.replace(' ', '-')}.png"
        if name in pictures:
            resurrected = measured["resurrection"]
            share = resurrected[subject]["mean"]
            which = (
                f"{subject}, the first of {models}" if (models := len(resurrected[subject]["values"])) > 1 else subject
            )
            words = f"{which}: the original calls {share:.0f} % of all that was made so for {classes_of(record)} by it"
            shown.append(picture(pictures[name], f"Images inverted from {words}, a row a class", words))
    if not shown:
        return None
    text = "Each model was asked to draw every class from its own weights. The original model named what came out."
    return section("What the models still draw", element("p", text), element("div", *shown, class_="pictures"))


def entropies(record: Record) -> Markup | None:
    if not record["histograms"]:
        return None
    settings = (record["origin"]["run"] or {}).get("settings", {})
    threshold = settings.get("entropy")
    lines = {"filter": float(threshold)} if isinstance(threshold, (int, float)) else {}
    with_line = ", with the training filter's threshold" if lines else ""
    figures = [
        chart(charts.entropies(record["histograms"], kind, lines), f"On {kind} images{with_line}")
        for kind in ("forget", "retain")
    ]
    words = element("p", "Of each kind of model its first one.")
    return section("How sure the models are", words, element("div", *figures, class_="charts"))


def confusions(record: Record) -> Markup | None:
    """Where the forget images go, before and after."""
    found = next((m for m in record["measurements"] if m["name"] == "accuracy-forget"), None)
    if found is None:
        return None
    names = record["class_names"]
    rows = []
    whole = found["details"]["confusion"]
    for subject in (s for s in SUBJECTS if s in whole):
        rows += [[f"{subject}: true {names[c]}", *whole[subject][c]] for c in record["forget"]]
    matrices = []
    for subject in (ORIGINAL, MODEL, RETRAINED):
        if subject in whole and len(names) <= LARGEST_MATRIX:
            body = [[names[c], *whole[subject][c]] for c in range(len(names))]
            matrices.append(table(f"Confusion of {subject}: true class by called class", ["", *names], body))
    columns = [s for s in SUBJECTS if s in whole]
    shares = [[name, *(class_accuracy(whole[s][c], c) for s in columns)] for c, name in enumerate(names)]
    return section(
        "What forget images are called now",
        element("p", "Of each kind of model its first one."),
        table("Images of the forget classes by the class they are called", ["", *names], rows),
        folded("Accuracy of each class", table("Images called by their own class, in per cent", ["", *columns], shares)),
        folded("All classes, before and after", *matrices) if matrices else None,
    )  # fmt: skip


def class_accuracy(called: Sequence[int], true: int) -> str | None:
    return f"{100 * called[true] / seen:.1f}" if (seen := sum(called)) else None
