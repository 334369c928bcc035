"""ltpa: a reproducible benchmark of trainable attention in image classifiers.

>>> import ltpa
>>> model = ltpa.create_model("vgg-att2-concat-pc", num_classes=10)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["create_model", "evaluate", "list_models", "load"]

if TYPE_CHECKING:
    from ltpa.models import create_model, list_models, load
    from ltpa.stages.foreign import evaluate


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        from ltpa.stages.foreign import evaluate

        return evaluate
    if name in __all__:
        from ltpa import models

        return getattr(models, name)
    raise AttributeError(f"module 'ltpa' has no attribute {name!r}")
