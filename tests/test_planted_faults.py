"""Laws that find nothing may be looking at nothing: each fault planted here must turn one of them red."""

from __future__ import annotations

import ast
import inspect
import math
import operator
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from tests import test_laws as laws
from tests import test_windows
from tests.strategies import Case, cases
from thalweg.engine.decide import Decided, Decider
from thalweg.engine.features import gate, groups
from thalweg.engine.kernels import accumulate, fixed, folds, join, lifetimes, rings, windows
from thalweg.engine.kernels import gate as gate_kernel

SEARCH = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def is_broken(check: Callable[[Any], None], strategy: st.SearchStrategy[Any], examples: int = 400) -> bool:
    """Whether the law ``check`` has a counterexample among a few hundred cases."""

    def fails(case: Any) -> bool:
        try:
            check(case)
        except AssertionError:
            return True
        return False

    try:
        find(strategy, fails, settings=settings(SEARCH, max_examples=examples))
    except NoSuchExample:
        return False
    return True


# The kernels of windows: each imports from those before it.
WINDOWS = (accumulate, fixed, rings, folds, lifetimes, windows)


def interpreted_kernel(
    old: str = "", new: str = "", of: ModuleType | tuple[ModuleType, ...] = WINDOWS, name: str = "advance"
) -> Any:
    """A kernel as plain Python, with one piece of the source of its modules replaced."""
    modules = of if isinstance(of, tuple) else (of,)
    sources = [inspect.getsource(module) for module in modules]
    said = sum(source.count(old) for source in sources)
    assert said == 1 or not old, f"the kernels say {old!r} {said} times; plant the fault elsewhere"
    known: dict[str, Any] = {"borrowed": lambda array: array, "prefetch": lambda array, index: None}
    for module, source in zip(modules, sources, strict=True):
        tree = ast.parse(source.replace(old, new) if old else source)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                node.decorator_list = []
        namespace: dict[str, Any] = {"__name__": module.__name__}
        exec(compile(tree, str(module.__file__), "exec"), namespace)
        namespace |= {each: known[each] for each in namespace.keys() & known.keys()}
        known |= {each: item for each, item in namespace.items() if inspect.isfunction(item)}

    def interpreted(*args: Any) -> Any:
        with np.errstate(all="ignore"):  # such as before the first row, whose watermark is the smallest int64
            return known[name](*args)

    return interpreted


def words_of(number: int, n: int) -> list[np.int64]:
    """An integer in words of 64 bits, lowest first."""
    return [np.int64((number >> 64 * j) % 2**64 - (((number >> 64 * j + 63) & 1) << 64)) for j in range(n)]


TIES = st.builds(
    lambda mantissa, shift, rest: (mantissa << shift) + (1 << max(shift - 1, 0)) + rest,
    st.integers(2**52, 2**53 - 1),
    st.integers(0, 49),
    st.integers(-1, 1),
)


@given(st.one_of(TIES, TIES.map(operator.neg), st.integers(1 - 2**103, 2**103 - 1)), st.integers(0, 2**24 - 1))
def test_sums_are_rounded_once_and_keep_their_count(total: int, n: int) -> None:
    nearest, parted = (interpreted_kernel(of=fixed, name=name) for name in ("nearest", "parted"))
    low, high = words_of(total + (n << 104), 2)
    upper, count = parted(high)
    assert (nearest(low, upper), count) == (float(total), n)


@given(st.lists(st.tuples(st.integers(0, 2**53 - 1), st.integers(0, 26), st.booleans()), min_size=1, max_size=5))
def test_squares_and_their_spread_are_exact(drawn: list[tuple[int, int, bool]]) -> None:
    square, shifted, spread = (interpreted_kernel(of=fixed, name=name) for name in ("square", "shifted", "spread"))
    numbers = [-(m << shift) if negative else m << shift for m, shift, negative in drawn]
    for number, (m, shift, negative) in zip(numbers, drawn, strict=True):
        assert list(shifted(np.int64(m), np.int64(shift), negative)) == words_of(number, 2)
        assert list(square(np.int64(m), np.int64(shift))) == words_of(number**2, 3)
    n, total, squares = len(numbers), sum(numbers), sum(number**2 for number in numbers)
    found = spread(np.int64(n), *words_of(total, 2), *words_of(squares, 3))
    assert math.isclose(found, n * squares - total**2, rel_tol=1e-15)


def twin(case: Case) -> None:
    laws.equals_the_twin(case)


def cuts(case: Case) -> None:
    laws.cuts_agree(case, [3, 7, 8, 20], [5, 11])


def duckdb(case: Case) -> None:
    laws.equals_duckdb(case)


def futures(case: Case) -> None:
    """Law 6 at every message."""
    for messages in case.shards:
        for n in range(len(messages)):
            laws.no_future(case.definition, messages[:n], messages)


def test_soa_equals_rowwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled kernels over arrays give what the same source gives as plain Python; and no law is red by itself."""
    monkeypatch.setattr(groups, "advance", interpreted_kernel())
    monkeypatch.setattr(gate, "gate", interpreted_kernel(of=gate_kernel, name="gate"))
    monkeypatch.setattr(join, "decide", interpreted_kernel(of=join, name="decide"))
    assert not is_broken(twin, cases(size=20), examples=60)


KERNEL_FAULTS = {
    "left edge": ("edge = now - code[u(w + W_LENGTH)]", "edge = now - code[u(w + W_LENGTH)] - 1"),
    "left edge of a row that comes behind": (
        "words[h + OLDEST], right, now - code[w + W_LENGTH])",
        "words[h + OLDEST], right, now - code[w + W_LENGTH] - 1)",
    ),
    "right edge": ("right = upper(words, arena, code, h, oldest, end, now)", "right = end"),
    "current row": (
        "                _append(words, reals, arena, values, code, h, now, ids[i], inputs, i)\n",
        (
            "                _append(words, reals, arena, values, code, h, now, ids[i], inputs, i)\n"
            "                _read(words, reals, arena, values, code, h, now, BEFORE, out, reads)\n"
        ),
    ),
    "taken slot": ("if reset[i] or h == 0:", "if h == 0:"),
    "settled too far": ("settled)] <= watermark:", "settled)] <= watermark + 5000000:"),
    "dropped too early": ("watermark - code[KEEP_US])", "watermark - code[KEEP_US] + 1000000)"),
}


# What only values of all sizes, or rows that come behind among ties, show.
WINDOW_FAULTS = {
    "order of ties": (
        "at = upper(words, arena, code, h, words[h + OLDEST], end, time)\n",
        "at = upper(words, arena, code, h, words[h + OLDEST], end, time - 1)\n",
    ),
    "extremes of what has left": ("words[u(h + word + 1)] <= left:", "words[u(h + word + 1)] < left:"),
    "a row that comes behind is nobody's extreme": ("(beats or (newer", "(words[m + 1] == 0 or (newer"),
    "a third word dropped": ("if rest != 0.0:", "if rest > 1e300:"),
    "squares that cancel": ("if rest > 0.0078125 * squares:", "if rest > 0.0:"),
    "values that do not fit": ("words[u(unit + MARK)] > left or ", ""),
    "a carry lost": ("high + ONE_MORE + x1 + carry", "high + ONE_MORE + x1"),
    "a lifetime's long sum cut": ("arena[at] = grow(expansion, n, x)", "arena[at] = n"),
    "a stack that forgets what a row behind may stand on": ("top = row - 1\n", "top = -1\n"),
    "ids not looked at": ("place(words, code, h, at) + 1] != row_id", "place(words, code, h, at) + 1] < 0"),
}


# What is drawn where few of all cases could show the fault.
LIKELY: dict[str, dict[str, Any]] = {
    "a third word dropped": {"labels": False, "ops": ("sum", "mean")},
    "a lifetime's long sum cut": {"labels": False, "ops": ("sum", "mean")},
    "squares that cancel": {"ops": ("var", "std")},
    "values that do not fit": {"labels": False, "ops": ("sum", "mean")},
    "a carry lost": {"labels": False, "ops": ("sum", "mean")},
    "extremes of what has left": {"ops": ("min", "max")},
    "a row that comes behind is nobody's extreme": {"ops": ("min", "max")},
    "a stack that forgets what a row behind may stand on": {"ops": ("min", "max")},
    "ids not looked at": {"labels": True},
}


SLOW_TO_FIND = ("settled too far", "dropped too early")


@pytest.mark.parametrize("fault", [f for f in KERNEL_FAULTS if f not in SLOW_TO_FIND])
def test_a_broken_kernel_is_found_by_the_twin(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "advance", interpreted_kernel(*KERNEL_FAULTS[fault]))
    assert is_broken(twin, cases())


@pytest.mark.parametrize("fault", WINDOW_FAULTS)
def test_a_broken_kernel_is_found_by_the_windows_own_law(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "advance", interpreted_kernel(*WINDOW_FAULTS[fault]))
    drawn = test_windows.cases(**LIKELY.get(fault, {}))
    assert is_broken(test_windows.equals_the_twin, drawn, examples=2000)


@pytest.mark.slow
@pytest.mark.parametrize("fault", SLOW_TO_FIND)
def test_a_kernel_that_forgets_too_early_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "advance", interpreted_kernel(*KERNEL_FAULTS[fault]))
    assert is_broken(twin, cases())


@pytest.mark.slow
def test_a_broken_kernel_is_found_by_duckdb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "advance", interpreted_kernel(*KERNEL_FAULTS["right edge"]))
    assert is_broken(duckdb, cases(hashed=False, capacity=False))


def test_a_watermark_per_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows that arrive together, none is late: the classic mistake, and cuts show it."""
    per_row = (
        "    for i in range(len(rows.times)):\n        time = rows.times[i]\n        watermark = NO_TIME if newest"
    )
    per_batch = "    first = newest\n" + per_row.replace("if newest", "if first")
    rest = " == NO_TIME else {} - rules.disorder"
    fault = (per_row + rest.format("newest"), per_batch + rest.format("first"))
    monkeypatch.setattr(gate, "gate", interpreted_kernel(*fault, of=gate_kernel, name="gate"))
    assert is_broken(cuts, cases(learns=True))


def broken_join(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    monkeypatch.setattr(join, "decide", interpreted_kernel(old, new, join, "decide"))


def test_a_label_seen_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A label that reaches the features a row before it was read: the future and the twin show it."""
    before = "tell[TELL_BEFORE] = "
    broken_join(monkeypatch, f"{before}out.used[ENTERING]", f"{before}max(0, out.used[ENTERING] - 1)")
    assert is_broken(futures, cases(size=25, label="bool"))
    assert is_broken(twin, cases(label="bool"))


def test_a_label_read_before_the_rows_of_its_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of a batch joined before its events, as a flow does that looks them up batch by batch."""
    in_order = Decider.decide

    def labels_first(self: Decider, sources: Any, *rest: Any, **more: Any) -> Decided:
        order = np.argsort(sources < join.LABEL, kind="stable")
        decided = in_order(self, sources[order], *rest, **more)
        return decided._replace(steps=replace(decided.steps, messages=order[decided.steps.messages]))

    monkeypatch.setattr(Decider, "decide", labels_first)
    assert is_broken(cuts, cases(learns=True))


def test_a_timeout_at_the_wrong_row_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timeouts a microsecond after the watermark has reached their deadline are late."""
    due = "while numbers[DEADLINES] > 0 and join.deadlines[0, 0] <= watermark"
    broken_join(monkeypatch, due, f"{due} - 1")
    assert is_broken(twin, cases(label="bool"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if numbers[PENDING] > rules.pending:", "if numbers[PENDING] > rules.pending + 1:"),
        ("oldest = numbers[OLDEST]", "oldest = numbers[NEWEST]"),
        ("    if was_early:\n", "    if False:\n"),
        ("ids[slot, LABEL_ROW], REMOVE)", "ids[slot, LABEL_ROW], ENTER)"),
        ("elif ids[slot, WORD] == word:", "elif False:"),
        ("ids[slot, EXPIRES] = max(ids[slot, EXPIRES], time + 2 * rules.horizon)", "pass"),
    ],
)
def test_a_broken_join_is_found_by_the_twin(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_join(monkeypatch, old, new)
    assert is_broken(twin, cases(label="bool"), examples=2000)
