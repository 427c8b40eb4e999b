"""1,797 real digits of scikit-learn, each turned by 0 to 180 degrees: a regressor's target is the angle."""

from unlearn.data_sets.digits import load
from unlearn.data_sets.reading.rotated import rotated

DATA_SET = rotated(load)
