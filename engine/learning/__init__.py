"""Predict, join the label, learn, measure."""

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
) -> Member:
    """The member for whatever stands in ``models=[...]``: a baseline, or a River model (River is imported
    only then).
    """
    if isinstance(model, baselines.Baseline):
        return baselines.member(model, name=name, fingerprint=fingerprint, label_type=label_type)
    from thalweg.engine.learning import river

    return river.member(model, name=name, fingerprint=fingerprint, label_type=label_type, weighted=weighted)
