from unlearn.api import audit as audit
from unlearn.api import distill as distill
from unlearn.api import evaluate as evaluate
from unlearn.api import export as export
from unlearn.api import import_checkpoint as import_checkpoint
from unlearn.api import train as train
from unlearn.api import unlearn as unlearn
