"""Predict, join the label, learn, measure."""

from collections.abc import Sequence

from thalweg.engine.learning import baselines
from thalweg.engine.learning.member import Label, LabelType, Member, Prediction, Task

__all__ = ["Label", "LabelType", "Member", "Prediction", "Task", "member"]


def member(
    model: object,
    *,
    name: str | None = None,
    fingerprint: str,
    label_type: LabelType | None = None,
    weighted: bool = False,
    numbers: Sequence[str] | None = None,
) -> Member:
    """The member for whatever stands in ``models=[...]``: a baseline, or a River model (River is imported
    only then), lowered where that can be. ``numbers`` are the names of the features, None where one is text.
    """
    if isinstance(model, baselines.Baseline):
        return baselines.member(model, name=name, fingerprint=fingerprint, label_type=label_type)
    from thalweg.engine.learning import river

    return river.member(
        model, name=name, fingerprint=fingerprint, label_type=label_type, weighted=weighted, numbers=numbers
    )
