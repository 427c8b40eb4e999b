"""The data sets that `--data` can name, one per file. torch is not loaded here, because help texts list the names.

Each module of this package holds one data set: an object `DATA_SET` (see `reading/data_set.py`). The name of the data
set is the module's name, with dashes instead of underscores. A new file is a new data set; nothing else has to change.

Another installed package can add data sets through entry points. In its setup.cfg:

    [options.entry_points]
    data_free_unlearning.data_sets =
        my-photos = my_package.photos
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from synth.basics.errors import UserError

if TYPE_CHECKING:
    from unlearn.data_sets.reading.data_set import DataSet

ENTRY_POINTS = "data_free_unlearning.data_sets"


def names() -> list[str]:
    """The names of all data sets: first those of this package, then those of other installed packages."""
    ours = own_names()
    return ours + sorted({point.name for point in entry_points(group=ENTRY_POINTS)} - set(ours))


def own_names() -> list[str]:
    modules = pkgutil.iter_modules(__path__)
    return sorted(module.name.replace("_", "-") for module in modules if not module.ispkg)


def find(name: str) -> DataSet | None:
    """The data set of this name, or None. A data set of this package comes before another package's of the same name.

    Raises:
        UserError: another package announces the data set, but cannot be loaded.
    """
    if name in own_names():
        found: DataSet = import_module(f"{__name__}.{name.replace('-', '_')}").DATA_SET
        return found
    for point in entry_points(group=ENTRY_POINTS, name=name):
        try:
            found = point.load()
            found = getattr(found, "DATA_SET", found)  # the entry may name the module or the object
        except Exception as error:  # the code of another package may raise anything
            raise UserError(
                f"cannot load the data set '{name}' from {point.value} ({type(error).__name__}: {error}): "
                "repair or remove the package that announces it"
            ) from error
        return found
    return None
