"""River, lowered: models that River configures, as arrays and kernels with River's own arithmetic."""

from thalweg.engine.learning.lowered.lowered import Lowered, compile, why_not  # noqa: A004 - it compiles

__all__ = ["Lowered", "compile", "why_not"]
