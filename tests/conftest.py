"""Hypothesis profiles: `fast` is the same on every run, `nightly` looks for new examples.

`pytest --hypothesis-profile=nightly` chooses; a failure of `nightly` prints a line that repeats it.
"""

from hypothesis import HealthCheck, settings

# The first example of a test may compile kernels, so no example has a deadline.
_SLOW_START = [HealthCheck.too_slow]

settings.register_profile(
    "fast", max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=_SLOW_START
)
settings.register_profile(
    "nightly", max_examples=1000, deadline=None, print_blob=True, suppress_health_check=_SLOW_START
)
settings.load_profile("fast")
