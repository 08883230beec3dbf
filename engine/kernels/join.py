"""The label join, row by row: which prediction a label belongs to, what times out, where a label enters the features.

Rule 7 of the contract. Everything is a whole number here: an event id is a slot, a label a word, a feature's key the
number of the row that had it. What follows from a message is left as steps, which are carried out once the features
are computed. Cost per row: a few loads; a push to a heap per prediction. Naive twin: ``tests/naive.py``.
"""

from __future__ import annotations

from typing import NamedTuple

from thalweg.engine.kernels.arrays import Bool, Int8, Int64
from thalweg.engine.kernels.borrow import borrowed
from thalweg.engine.kernels.gate import FOLDED, LATE, NO_TIME
from thalweg.engine.kernels.jit import inlined_part, kernel
from thalweg.engine.kernels.steps import GIVE_UP, LEARN, PREDICT, REPORT, REVISE
from thalweg.engine.kernels.windows import ENTER, REMOVE

NONE = -1

# What a message is.
EVENT, EVENT_REJECT, LABEL, LABEL_REJECT = range(4)

# What became of a prediction.
WAITING, JOINED, TIMED_OUT, EVICTED = range(4)

# Columns of `Join.ids`: what is known of an event id. `KEYS` and `FED` are rows whose keys count: those of its latest
# accepted row, and those under which its label stands in the features.
ALIVE, TIME, EXPIRES, TOLD, WORD, AVAILABLE, LABEL_ROW, BORN, KEYS, FED, FIRST, LAST = range(12)
ID_WIDTH = 12

# Columns of `Join.served`: a prediction that was served.
NUMBER, ROW, MADE, STATUS, COUNTS, COUNTED, OWNER, NEXT, OLDER, NEWER = range(10)
SERVED_WIDTH = 10

# Columns of `Decided.steps` and `Decided.tells`.
KIND, MESSAGE, ENTRY, PREDICTION, LABEL_WORD, SINCE, HAS_BEFORE, BEFORE, AT = range(9)
STEP_WIDTH = 9
TELL_BEFORE, TELL_KEYS, TELL_TIME, TELL_WORD, TELL_WATERMARK, TELL_ROW, TELL_ACT = range(7)
TELL_WIDTH = 7
MOST_TELLS, MOST_RELEASED = 3, 6  # that one message causes

# `Join.numbers`: counts since the first row, the waiting predictions in order of serving, and sizes.
ACCEPTED, PREDICTED, LABELS_TOLD, PASSED, OLDEST, NEWEST, PENDING, DEADLINES, EARLY, FREE, FREED = range(11)
NUMBERS = 11

# `Join.counts`; the outcomes of the gate stand at COUNT_OUTCOMES + outcome.
COUNT_READ, COUNT_REJECTED, COUNT_OUTCOMES = 0, 1, 2
(MADE_, JOINED_, TIMED_OUT_, CENSORED_, EVICTED_) = range(7, 12)
(L_READ, L_JOINED, L_DUPLICATE, L_CORRECTED, L_EARLY, L_UNMATCHED, L_REJECTED) = range(12, 19)
COUNTS_WIDTH = 19

# `Decided.used`.
EVENTS, LABELS, STEPS, TELLS, RELEASED, ENTERING, REPORTS = range(7)
USED = 7


class JoinRules(NamedTuple):
    """``labels`` 0 without a label; ``horizon`` microseconds; ``pending`` how many predictions may wait; ``timeout``
    0 drop, 1 censored, 2 the class ``timeout_word``; ``answer_late`` 1 where late rows are answered; a report every
    ``every`` predictions; ``keyed`` 1 where labels feed features."""

    labels: int
    horizon: int
    pending: int
    timeout: int
    timeout_word: int
    answer_late: int
    every: int
    keyed: int


class Events(NamedTuple):
    """n rows of the stream in reading order, with what the gate said: outcomes int8[n], watermarks int64[n], asks
    bool[n], times int64[n], ids int64[n] (-1 = null); those that are labels too: tells bool[n], words int64[n],
    available int64[n], whole bool[n] (nothing of the label is null)."""

    outcomes: Int8
    watermarks: Int64
    asks: Bool
    times: Int64
    ids: Int64
    tells: Bool
    words: Int64
    available: Int64
    whole: Bool


class Labels(NamedTuple):
    """Rows of the label's own log: ids, words, available int64[n]; whole bool[n]: not refused."""

    ids: Int64
    words: Int64
    available: Int64
    whole: Bool


class Join(NamedTuple):
    """State: ids int64[slots, ID_WIDTH], served int64[entries, SERVED_WIDTH], heaps deadlines int64[., 3] (deadline,
    row, entry) and early int64[., 3] (expiry, label row, slot), free int64[entries] (free entries from the left, those
    freed by this reading from the right), numbers int64[NUMBERS], counts int64[COUNTS_WIDTH]."""

    ids: Int64
    served: Int64
    deadlines: Int64
    early: Int64
    free: Int64
    numbers: Int64
    counts: Int64


class Decided(NamedTuple):
    """Written: steps int64[., STEP_WIDTH], tells int64[., TELL_WIDTH], released int64[.] (rows whose keys nobody needs
    any more), entering int64[n] (rows of the stream that reach the features), reports int64[., COUNTS_WIDTH + 1]
    (counts and pending at each report), used int64[USED]."""

    steps: Int64
    tells: Int64
    released: Int64
    entering: Int64
    reports: Int64
    used: Int64


@kernel
def decide(
    start: int, sources: Int8, events: Events, labels: Labels, newest: int, rules: JoinRules, join: Join, out: Decided
) -> int:
    """Goes through messages ``start`` onwards; ``sources`` int8[m] says what each is, ``newest`` is the watermark
    behind the last row. Returns the message before which ``out.steps`` is too small (call again with more), or m."""
    join = Join(
        borrowed(join.ids),
        borrowed(join.served),
        borrowed(join.deadlines),
        borrowed(join.early),
        borrowed(join.free),
        borrowed(join.numbers),
        borrowed(join.counts),
    )
    out = Decided(
        borrowed(out.steps),
        borrowed(out.tells),
        borrowed(out.released),
        borrowed(out.entering),
        borrowed(out.reports),
        borrowed(out.used),
    )
    events = Events(
        borrowed(events.outcomes),
        borrowed(events.watermarks),
        borrowed(events.asks),
        borrowed(events.times),
        borrowed(events.ids),
        borrowed(events.tells),
        borrowed(events.words),
        borrowed(events.available),
        borrowed(events.whole),
    )
    used = out.used
    for m in range(start, len(sources)):
        source = sources[m]
        if source == EVENT:
            i = used[EVENTS]
            if used[STEPS] + _most_steps(join, events.ids[i], events.watermarks[i]) > len(out.steps):
                return m
            used[EVENTS] += 1
            _read_event(m, i, events, rules, join, out)
        elif source == LABEL:
            i = used[LABELS]
            if used[STEPS] + _most_steps(join, labels.ids[i], NO_TIME) > len(out.steps):
                return m
            used[LABELS] += 1
            at = used[EVENTS]
            watermark = events.watermarks[at] if at < len(events.times) else newest
            if labels.whole[i]:
                _tell(m, labels.ids[i], labels.words[i], labels.available[i], watermark, rules, join, out)
            else:
                _refuse(join)
        elif source == EVENT_REJECT:
            join.counts[COUNT_READ] += 1
            join.counts[COUNT_REJECTED] += 1
        elif rules.labels != 0:
            _refuse(join)
    return len(sources)


@kernel
def sweep(join: Join, released: Int64) -> int:
    """Drops every id whose time is over; writes the rows whose keys nobody needs any more into ``released``
    int64[2 * slots] and returns how many they are."""
    rows = 0
    for slot in range(len(join.ids)):
        if join.ids[slot, ALIVE] != 0 and join.ids[slot, EXPIRES] <= join.numbers[PASSED]:
            rows = _drop(join, slot, released, rows)
    return rows


@inlined_part
def _most_steps(join: Join, slot: int, watermark: int) -> int:
    """No message causes more steps than this."""
    most = 6
    if join.numbers[DEADLINES] > 0 and join.deadlines[0, 0] <= watermark:
        most += join.numbers[PENDING]
    if slot >= 0:
        entry = join.ids[slot, FIRST] if join.ids[slot, ALIVE] != 0 else NONE
        while entry != NONE:
            most += 1
            entry = join.served[entry, NEXT]
    return most


@inlined_part
def _refuse(join: Join) -> None:
    join.counts[L_READ] += 1
    join.counts[L_REJECTED] += 1


# Rows of the stream


@inlined_part
def _read_event(m: int, i: int, events: Events, rules: JoinRules, join: Join, out: Decided) -> None:
    outcome = events.outcomes[i]
    join.counts[COUNT_READ] += 1
    join.counts[COUNT_OUTCOMES + outcome] += 1
    if outcome >= FOLDED:
        _accept(m, i, events, rules, join, out)
    elif outcome == LATE and rules.answer_late != 0 and events.asks[i]:
        _enter_features(i, out)
        _step(out, PREDICT, m, NONE, join.numbers[PREDICTED], i)


@inlined_part
def _accept(m: int, i: int, events: Events, rules: JoinRules, join: Join, out: Decided) -> None:
    numbers = join.numbers
    slot, asks, tells = events.ids[i], events.asks[i], events.tells[i]
    if rules.labels != 0:
        _time_out(m, events.watermarks[i], rules, join, out)
    _enter_features(i, out)
    remembered = rules.labels != 0 and slot >= 0 and (asks or not tells)
    entry = _new_entry(join, slot, events.times[i]) if asks and remembered else NONE
    if asks:
        _step(out, PREDICT, m, entry, numbers[PREDICTED], i)
        numbers[PREDICTED] += 1
    if remembered:
        _remember(m, i, slot, entry, events, rules, join, out)
    elif rules.labels != 0:
        if asks:
            join.counts[MADE_] += 1
            join.counts[EVICTED_] += 1
            _step(out, GIVE_UP, m, NONE, numbers[PREDICTED] - 1, i)
        if rules.keyed != 0:
            _release(out, numbers[ACCEPTED])
    numbers[ACCEPTED] += 1
    if tells:
        if events.whole[i]:
            _tell(m, slot, events.words[i], events.available[i], events.watermarks[i], rules, join, out)
        else:
            _refuse(join)
    if asks and numbers[PREDICTED] % rules.every == 0:
        at = out.used[REPORTS]
        out.used[REPORTS] += 1
        out.reports[at, :COUNTS_WIDTH] = join.counts
        out.reports[at, COUNTS_WIDTH] = numbers[PENDING]
        _step(out, REPORT, m, NONE, numbers[PREDICTED] - 1, i)


@inlined_part
def _remember(
    m: int, i: int, slot: int, entry: int, events: Events, rules: JoinRules, join: Join, out: Decided
) -> None:
    """The accepted row waits for its label; a label that is known by now is joined at once."""
    ids, time, watermark = join.ids, events.times[i], events.watermarks[i]
    _forget_if_over(join, slot, out)
    if ids[slot, ALIVE] == 0:
        _begin(join, slot, time + 2 * rules.horizon)
    else:
        _forget_old(join, slot, watermark - 2 * rules.horizon)
    was_early = ids[slot, TIME] == NO_TIME and ids[slot, TOLD] != 0
    ids[slot, TIME] = time
    ids[slot, EXPIRES] = max(ids[slot, EXPIRES], time + 2 * rules.horizon)
    if rules.keyed != 0:
        before = ids[slot, KEYS]
        if before != NONE and before != ids[slot, FED]:
            _release(out, before)
        ids[slot, KEYS] = join.numbers[ACCEPTED]
    if was_early:
        join.counts[L_EARLY] -= 1
        join.counts[L_JOINED] += 1
        _feed(slot, watermark, rules, join, out)
    if entry != NONE:
        _serve(m, slot, entry, rules, join, out)


@inlined_part
def _serve(m: int, slot: int, entry: int, rules: JoinRules, join: Join, out: Decided) -> None:
    ids, served, numbers = join.ids, join.served, join.numbers
    join.counts[MADE_] += 1
    if ids[slot, FIRST] == NONE:
        ids[slot, FIRST] = entry
    else:
        served[ids[slot, LAST], NEXT] = entry
    ids[slot, LAST] = entry
    if ids[slot, TOLD] != 0:
        served[entry, STATUS] = JOINED
        join.counts[JOINED_] += 1
        _learn(m, entry, ids[slot, WORD], ids[slot, AVAILABLE], join, out)
        return
    _wait(join, entry)
    numbers[DEADLINES] = _push(
        join.deadlines, numbers[DEADLINES], served[entry, MADE] + rules.horizon, served[entry, ROW], entry
    )
    if numbers[PENDING] > rules.pending:
        oldest = numbers[OLDEST]
        _close(join, oldest, EVICTED)
        join.counts[EVICTED_] += 1
        _step(out, GIVE_UP, m, oldest, served[oldest, NUMBER], NONE)


@inlined_part
def _time_out(m: int, watermark: int, rules: JoinRules, join: Join, out: Decided) -> None:
    """Predictions whose deadline the watermark has reached, in (deadline, row) order; ids whose time is over."""
    numbers, served = join.numbers, join.served
    while numbers[DEADLINES] > 0 and join.deadlines[0, 0] <= watermark:
        row, entry = join.deadlines[0, 1], join.deadlines[0, 2]
        numbers[DEADLINES] = _pop(join.deadlines, numbers[DEADLINES])
        if served[entry, ROW] != row or served[entry, STATUS] != WAITING:
            continue
        _close(join, entry, TIMED_OUT)
        join.counts[TIMED_OUT_] += 1
        if rules.timeout == 2:
            _learn(m, entry, rules.timeout_word, NO_TIME, join, out)
        else:
            join.counts[CENSORED_] += rules.timeout
            _step(out, GIVE_UP, m, entry, served[entry, NUMBER], NONE)
    numbers[PASSED] = max(numbers[PASSED], watermark)
    while numbers[EARLY] > 0 and join.early[0, 0] <= watermark:
        born, slot = join.early[0, 1], join.early[0, 2]
        numbers[EARLY] = _pop(join.early, numbers[EARLY])
        if join.ids[slot, ALIVE] != 0 and join.ids[slot, BORN] == born and join.ids[slot, TIME] == NO_TIME:
            join.counts[L_EARLY] -= 1
            join.counts[L_UNMATCHED] += 1
            join.ids[slot, ALIVE] = 0


# Labels


@inlined_part
def _tell(
    m: int, slot: int, word: int, available: int, watermark: int, rules: JoinRules, join: Join, out: Decided
) -> None:
    """A label was read."""
    ids, numbers, counts = join.ids, join.numbers, join.counts
    counts[L_READ] += 1
    numbers[LABELS_TOLD] += 1
    row = numbers[LABELS_TOLD]
    _forget_if_over(join, slot, out)
    if ids[slot, ALIVE] == 0:
        _begin(join, slot, available + rules.horizon)
        ids[slot, BORN] = row
        _know(join, slot, word, available, row)
        counts[L_EARLY] += 1
        numbers[EARLY] = _push(join.early, numbers[EARLY], ids[slot, EXPIRES], row, slot)
        return
    if ids[slot, TOLD] == 0:
        counts[L_CORRECTED if _timed_out(join, slot) else L_JOINED] += 1
    elif ids[slot, WORD] == word:
        counts[L_DUPLICATE] += 1
        return
    else:
        counts[L_CORRECTED] += 1
        if ids[slot, FED] != NONE:
            _tell_features(out, ids[slot, FED], ids[slot, AVAILABLE], 0, watermark, ids[slot, LABEL_ROW], REMOVE)
    _know(join, slot, word, available, row)
    if ids[slot, TIME] == NO_TIME:
        return
    _feed(slot, watermark, rules, join, out)
    entry = ids[slot, FIRST]
    while entry != NONE:
        status = join.served[entry, STATUS]
        if status == WAITING:
            _close(join, entry, JOINED)
            counts[JOINED_] += 1
            _learn(m, entry, word, available, join, out)
        elif status != EVICTED:
            _revise(m, entry, word, available, join, out)
        entry = join.served[entry, NEXT]


@inlined_part
def _know(join: Join, slot: int, word: int, available: int, row: int) -> None:
    join.ids[slot, TOLD] = 1
    join.ids[slot, WORD] = word
    join.ids[slot, AVAILABLE] = available
    join.ids[slot, LABEL_ROW] = row


@inlined_part
def _timed_out(join: Join, slot: int) -> bool:
    entry = join.ids[slot, FIRST]
    while entry != NONE:
        if join.served[entry, STATUS] == TIMED_OUT:
            return True
        entry = join.served[entry, NEXT]
    return False


@inlined_part
def _feed(slot: int, watermark: int, rules: JoinRules, join: Join, out: Decided) -> None:
    """The label enters the label-fed features under the keys of the event's latest row."""
    ids = join.ids
    if rules.keyed == 0:
        return
    if ids[slot, FED] != NONE and ids[slot, FED] != ids[slot, KEYS]:
        _release(out, ids[slot, FED])
    ids[slot, FED] = ids[slot, KEYS]
    _tell_features(out, ids[slot, KEYS], ids[slot, AVAILABLE], ids[slot, WORD], watermark, ids[slot, LABEL_ROW], ENTER)


# What is known of an id


@inlined_part
def _begin(join: Join, slot: int, expires: int) -> None:
    known = join.ids[slot]
    known[:] = 0
    known[ALIVE] = 1
    known[TIME] = NO_TIME
    known[EXPIRES] = expires
    known[KEYS] = NONE
    known[FED] = NONE
    known[FIRST] = NONE
    known[LAST] = NONE


@inlined_part
def _forget_if_over(join: Join, slot: int, out: Decided) -> None:
    if join.ids[slot, ALIVE] != 0 and join.ids[slot, EXPIRES] <= join.numbers[PASSED]:
        out.used[RELEASED] = _drop(join, slot, out.released, out.used[RELEASED])


@inlined_part
def _drop(join: Join, slot: int, released: Int64, rows: int) -> int:
    """Forgets an id and its predictions; adds the rows whose keys it held to ``released`` and returns how many there
    are then."""
    ids = join.ids
    entry = ids[slot, FIRST]
    while entry != NONE:
        following = join.served[entry, NEXT]
        _free(join, entry)
        entry = following
    if ids[slot, KEYS] != NONE:
        released[rows] = ids[slot, KEYS]
        rows += 1
    if ids[slot, FED] != NONE and ids[slot, FED] != ids[slot, KEYS]:
        released[rows] = ids[slot, FED]
        rows += 1
    ids[slot, ALIVE] = 0
    return rows


@inlined_part
def _forget_old(join: Join, slot: int, oldest: int) -> None:
    """Predictions of the id that are not younger than ``oldest`` go."""
    ids, served = join.ids, join.served
    entry, kept = ids[slot, FIRST], NONE
    ids[slot, FIRST] = NONE
    while entry != NONE:
        following = served[entry, NEXT]
        if served[entry, MADE] > oldest:
            if kept == NONE:
                ids[slot, FIRST] = entry
            else:
                served[kept, NEXT] = entry
            kept = entry
        else:
            _free(join, entry)
        entry = following
    if kept != NONE:
        served[kept, NEXT] = NONE
    ids[slot, LAST] = kept


# Predictions that were served


@inlined_part
def _new_entry(join: Join, slot: int, time: int) -> int:
    numbers = join.numbers
    numbers[FREE] -= 1
    entry = join.free[numbers[FREE]]
    served = join.served[entry]
    served[NUMBER] = numbers[PREDICTED]
    served[ROW] = numbers[ACCEPTED]
    served[MADE] = time
    served[STATUS] = JOINED
    served[COUNTS] = 0
    served[OWNER] = slot
    served[NEXT] = NONE
    return int(entry)


@inlined_part
def _free(join: Join, entry: int) -> None:
    """The entry is free from the next reading on: steps of this one may still need it."""
    if join.served[entry, STATUS] == WAITING:
        _unlink(join, entry)
    join.served[entry, STATUS] = EVICTED
    join.served[entry, ROW] = NONE
    join.numbers[FREED] += 1
    join.free[len(join.free) - join.numbers[FREED]] = entry


@inlined_part
def _wait(join: Join, entry: int) -> None:
    numbers, served = join.numbers, join.served
    served[entry, STATUS] = WAITING
    served[entry, OLDER] = numbers[NEWEST]
    served[entry, NEWER] = NONE
    if numbers[NEWEST] == NONE:
        numbers[OLDEST] = entry
    else:
        served[numbers[NEWEST], NEWER] = entry
    numbers[NEWEST] = entry
    numbers[PENDING] += 1


@inlined_part
def _close(join: Join, entry: int, status: int) -> None:
    _unlink(join, entry)
    join.served[entry, STATUS] = status


@inlined_part
def _unlink(join: Join, entry: int) -> None:
    numbers, served = join.numbers, join.served
    older, newer = served[entry, OLDER], served[entry, NEWER]
    if older == NONE:
        numbers[OLDEST] = newer
    else:
        served[older, NEWER] = newer
    if newer == NONE:
        numbers[NEWEST] = older
    else:
        served[newer, OLDER] = older
    numbers[PENDING] -= 1


# What follows


@inlined_part
def _enter_features(i: int, out: Decided) -> None:
    out.entering[out.used[ENTERING]] = i
    out.used[ENTERING] += 1


@inlined_part
def _release(out: Decided, row: int) -> None:
    out.released[out.used[RELEASED]] = row
    out.used[RELEASED] += 1


@inlined_part
def _step(out: Decided, kind: int, m: int, entry: int, number: int, at: int) -> None:
    step = out.steps[out.used[STEPS]]
    out.used[STEPS] += 1
    step[:] = 0
    step[KIND] = kind
    step[MESSAGE] = m
    step[ENTRY] = entry
    step[PREDICTION] = number
    step[AT] = at


@inlined_part
def _learn(m: int, entry: int, word: int, available: int, join: Join, out: Decided) -> None:
    _step(out, LEARN, m, entry, join.served[entry, NUMBER], NONE)
    step = out.steps[out.used[STEPS] - 1]
    step[LABEL_WORD] = word
    step[SINCE] = available
    join.served[entry, COUNTS] = 1
    join.served[entry, COUNTED] = word


@inlined_part
def _revise(m: int, entry: int, word: int, available: int, join: Join, out: Decided) -> None:
    has_before, before = join.served[entry, COUNTS], join.served[entry, COUNTED]
    _learn(m, entry, word, available, join, out)
    step = out.steps[out.used[STEPS] - 1]
    step[KIND] = REVISE
    step[HAS_BEFORE] = has_before
    step[BEFORE] = before


@inlined_part
def _tell_features(out: Decided, keys: int, time: int, word: int, watermark: int, row: int, act: int) -> None:
    tell = out.tells[out.used[TELLS]]
    out.used[TELLS] += 1
    tell[TELL_BEFORE] = out.used[ENTERING]
    tell[TELL_KEYS] = keys
    tell[TELL_TIME] = time
    tell[TELL_WORD] = word
    tell[TELL_WATERMARK] = watermark
    tell[TELL_ROW] = row
    tell[TELL_ACT] = act


# A heap of rows (key, second key, payload) in an array that is large enough


@inlined_part
def _before(heap: Int64, a: int, b: int) -> bool:
    return bool(heap[a, 0] < heap[b, 0] or (heap[a, 0] == heap[b, 0] and heap[a, 1] < heap[b, 1]))


@inlined_part
def _swap(heap: Int64, a: int, b: int) -> None:
    for k in range(3):
        heap[a, k], heap[b, k] = heap[b, k], heap[a, k]


@inlined_part
def _push(heap: Int64, size: int, key: int, second: int, payload: int) -> int:
    heap[size, 0] = key
    heap[size, 1] = second
    heap[size, 2] = payload
    at = size
    while at > 0 and _before(heap, at, (at - 1) // 2):
        _swap(heap, at, (at - 1) // 2)
        at = (at - 1) // 2
    return size + 1


@inlined_part
def _pop(heap: Int64, size: int) -> int:
    size -= 1
    _swap(heap, 0, size)
    _sink(heap, size, 0)
    return size


@inlined_part
def _sink(heap: Int64, size: int, at: int) -> None:
    while True:
        least = at
        for child in (2 * at + 1, 2 * at + 2):
            if child < size and _before(heap, child, least):
                least = child
        if least == at:
            return
        _swap(heap, at, least)
        at = least


@kernel
def tidy(join: Join) -> None:
    """Takes the deadlines of predictions that no longer wait out of their heap."""
    size = 0
    for k in range(join.numbers[DEADLINES]):
        row, entry = join.deadlines[k, 1], join.deadlines[k, 2]
        if join.served[entry, ROW] == row and join.served[entry, STATUS] == WAITING:
            join.deadlines[size] = join.deadlines[k]
            size += 1
    join.numbers[DEADLINES] = size
    for at in range(size // 2 - 1, -1, -1):
        _sink(join.deadlines, size, at)
