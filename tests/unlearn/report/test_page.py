import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner
from jinja2 import UndefinedError

from synth.basics.errors import UserError
from unlearn.auditing.audit_folder import AUDIT
from unlearn.auditing.record.schema import LARGEST, read_record
from unlearn.auditing.record.versions import PAGE_VERSION
from unlearn.auditing.text import audit_text
from unlearn.commands.main import main
from unlearn.report.file import read_report
from unlearn.report.page.charts import STYLES, draw_relearning
from unlearn.report.page.page import environment, page, writer_of
from unlearn.report.write import write_report

VOID = {"meta", "link", "img", "br", "path", "use", "rect"}


class Outline(HTMLParser):
    """Tags in balance, and what an accessible page needs."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html(page_path: Path) -> str:
    return page_path.read_text()


def test_question_and_answer_stand_first(html: str) -> None:
    body = html[html.index("<body>") :]
    first = body[: body.index("<section")]
    assert "What is left of class 0?" in first
    assert "Like retrained" in first
    assert "forget accuracy" in first
    assert "What still holds the class" in first
    assert "<svg" in first


def test_the_page_is_well_formed_and_every_picture_has_words(html: str) -> None:
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    pictures = [attributes for tag, attributes in outline.tags if tag == "img"]
    charts = [attributes for tag, attributes in outline.tags if tag == "svg"]
    assert pictures
    assert charts
    assert all(attributes.get("alt") for attributes in pictures)
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in charts)
    regions = [attributes for _, attributes in outline.tags if attributes.get("role") == "region"]
    assert regions
    assert all(attributes.get("tabindex") == "0" and attributes.get("aria-label") for attributes in regions)
    ids = [attributes["id"] for _, attributes in outline.tags if attributes.get("id")]
    headings = {attributes["aria-labelledby"] for tag, attributes in outline.tags if tag == "section"}
    assert headings <= set(ids)


def test_nothing_is_loaded_from_anywhere(html: str) -> None:
    links = re.findall(r'(?:src|href|xlink:href)="([^"#]*)', html) + re.findall(r"url\(([^)#]*)", html)
    assert [link for link in links if link and not link.startswith("data:")] == []
    assert "default-src 'none'" in html
    assert "<script" not in html.replace('<script type="application/json"', "")


def test_everything_a_reader_needs_is_there(html: str, audited: Path) -> None:
    record = read_record(audited / AUDIT)
    for heading in (
        "Does the audit itself work?",
        "What the models still draw",
        "How quickly the class comes back",
        "What forget images are called now",
        "How sure the models are",
        "Every measure",
        "Limitations",
        "Where everything comes from",
        "How it was judged",
    ):
        assert f">{heading}</h2>" in html
    assert all(m["title"].replace("'", "&#39;") in html for m in record["measurements"])
    for digest in (record["models"]["teacher"]["sha256"], record["models"]["student"]["sha256"]):
        assert digest in html
    assert record["ledger"][0]["rows"] in html


def test_the_same_record_gives_the_same_page_and_is_read_back_from_it(html: str, audited: Path, tmp_path: Path) -> None:
    record = read_record(audited / AUDIT)
    assert page(record, read_report(audited).pictures) == html
    (tmp_path / "report.html").write_text(html)
    assert read_report(tmp_path / "report.html").record == record


def test_a_failed_check_of_the_audit_itself_stands_beside_the_answer(html: str, audited: Path) -> None:
    record = read_record(audited / AUDIT)
    words = "check of itself failed: masked logit is called"
    assert words not in html
    record["controls"][1]["conclusion"] = "like retrained"
    text = page(record, {})
    assert words in text[: text.index("<section")]
    assert words in audit_text(record).splitlines()[1]


def test_a_hostile_record_stays_text(audited: Path, tmp_path: Path) -> None:
    record = read_record(audited / AUDIT)
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    record["class_names"][0] = attack
    record["verdict"]["sentence"] = attack
    for model in (record["models"]["teacher"], record["models"]["student"]):
        model["path"] = attack
    record["measurements"][0]["title"] = attack
    record["not_run"] = [{"name": attack, "why": "{{ first.__class__ }}", "cure": "{% include 'report.css' %}"}]
    record["origin"]["run"] = {
        "settings": {attack: attack},
        "provenance": {"samples": {f"$\\frac{attack}$": 3}, "real_images_read": attack},
        "metrics": [{"step": 1, f"$\\frac{attack}$": 2.0}],
    }
    record["verdict"]["reasons"] = [attack]
    text = page(record, {})
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "{{ first.__class__ }}" in text
    (tmp_path / "report.html").write_text(text)
    assert read_report(tmp_path / "report.html").record == record


def test_a_chart_says_in_words_what_it_shows(audited: Path) -> None:
    record = read_record(audited / AUDIT)
    chart = draw_relearning(next(m for m in record["measurements"] if m["name"] == "relearn-retain"))
    assert "cut off below the target" in chart[: chart.index(">")]


def test_series_differ_by_more_than_colour_and_stand_out_from_white() -> None:
    assert len({(style["linestyle"], style.get("linewidth")) for style in STYLES.values()}) == len(STYLES)
    assert all(contrast_with_white(style["color"]) > 4.5 for style in STYLES.values())


def contrast_with_white(colour: str) -> float:
    """WCAG 2's contrast ratio."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


def test_a_bug_of_the_page_is_a_traceback_and_not_the_fault_of_the_report(
    audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(record: object) -> None:
        raise KeyError("a name that is spelt wrong")

    monkeypatch.setattr("unlearn.report.page.page.inputs", bug)
    with pytest.raises(KeyError):
        write_report(audited, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_record_without_its_details_is_refused_in_one_line(audited: Path, tmp_path: Path) -> None:
    record = read_record(audited / AUDIT)
    for measurement in record["measurements"]:
        measurement["details"] = {}
    (tmp_path / AUDIT).write_text(json.dumps(record))
    with pytest.raises(UserError, match="is a required property"):
        write_report(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


# The digest of everything in the page's folder that is not Python, for each PAGE_VERSION.
TEMPLATES = {3: "7dfc0fd2477c1aa8"}


def test_other_templates_have_another_version_of_the_page() -> None:
    folder = Path(str(files("unlearn.report.page")))
    sources = sorted([*folder.glob("*.j2"), *folder.glob("*.css")])
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    assert TEMPLATES.get(PAGE_VERSION) == digest, (
        "The page's templates changed: raise PAGE_VERSION in auditing/record/versions.py and put the new digest "
        "beside it here. If no released version wrote pages with it yet, only replace the digest."
    )


def test_the_page_names_the_versions_that_decide_its_bytes(html: str) -> None:
    named = writer_of(html) or ""
    for package in ("data-free-unlearning", "matplotlib", "jinja2"):
        assert f"{package} {version(package)}" in named
    assert f"page {PAGE_VERSION}" in named


def test_a_template_cannot_leave_out_what_its_view_lacks() -> None:
    with pytest.raises(UndefinedError):
        environment().from_string("{{ first.spelt_wrong }}").render(first={})


def test_what_is_not_a_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html></html>")
    with pytest.raises(UserError, match="holds no audit record"):
        read_report(tmp_path / "page.html")
    with pytest.raises(UserError, match="cannot read"):
        read_report(tmp_path / "none")
    for name in ("zero.html", "zero.json"):
        (tmp_path / name).symlink_to("/dev/zero")
        with pytest.raises(UserError, match="it is a device, not a file"):
            read_report(tmp_path / name)
    with (tmp_path / "large.html").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(UserError, match="it is larger than 64 MiB"):
        read_report(tmp_path / "large.html")


def test_a_page_does_not_go_where_a_run_or_a_checkpoint_would(
    audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "teacher.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNLEARN_OUT", "teacher.safetensors")
    assert CliRunner().invoke(main, ["report", str(audited)]).exit_code == 0
    assert (tmp_path / "teacher.safetensors").read_bytes() == b"weights"
    assert (tmp_path / "report.html").exists()
    monkeypatch.setenv("UNLEARN_REPORT_OUT", "page.html")
    assert CliRunner().invoke(main, ["report", str(audited)]).exit_code == 0
    assert (tmp_path / "page.html").exists()
