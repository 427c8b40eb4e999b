"""What the tests of the audit and of the report share: small models of digits, and one small audit of them."""

from tests.unlearn.auditing.audited_points import point_models, points_audited
from tests.unlearn.auditing.subjects import audited, models, page_path

__all__ = ["audited", "models", "page_path", "point_models", "points_audited"]
