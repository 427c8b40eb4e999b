"""The page of a report, of whatever kind its audit is."""

from __future__ import annotations

from collections.abc import Mapping

from unlearn.report.page.page import page
from unlearn.report.page.points_page import points_page
from unlearn.report.page.tables import Record
from unlearn.report.places import is_of_points


def render(record: Record, pictures: Mapping[str, bytes]) -> str:
    """The whole file: a function of the record and the pictures only."""
    return points_page(record, pictures) if is_of_points(record) else page(record, pictures)
