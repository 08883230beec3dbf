"""The rules of the house hold for every file, and each rule is shown to bite."""

from __future__ import annotations

import ast

import pytest

from tests.house_rules import (
    ROOT,
    RULES,
    Rule,
    dependencies_are_declared,
    imports_point_one_way,
    kernels_stay_home,
    libraries_have_their_place,
    sources,
    the_engine_is_pure,
)

REJECTED = [
    (imports_point_one_way, "engine/kernels/sums.py", "from thalweg.engine.batch import Batch"),
    (imports_point_one_way, "engine/kernels/sums.py", "from .. import batch"),
    (imports_point_one_way, "engine/batch.py", "import thalweg.connectors.codecs"),
    (imports_point_one_way, "engine/batch.py", "def f():\n    from ..dataflows import cli"),
    (imports_point_one_way, "engine/batch.py", "from thalweg import Stream"),
    (imports_point_one_way, "connectors/codecs.py", "from thalweg import dataflows"),
    (imports_point_one_way, "dataflows/cli.py", "import benchmarks.windows"),
    (imports_point_one_way, "dataflows/cli.py", "from tests import naive"),
    (imports_point_one_way, "dataflows/cli.py", "from engine.batch import Batch"),
    (libraries_have_their_place, "engine/step.py", "from bytewax.dataflow import Dataflow"),
    (libraries_have_their_place, "dataflows/live.py", "import confluent_kafka"),
    (libraries_have_their_place, "dataflows/demo.py", "import noida_db"),
    (libraries_have_their_place, "engine/learning/metrics.py", "from river import metrics"),
    (libraries_have_their_place, "dataflows/pipeline.py", "import river.linear_model"),
    (libraries_have_their_place, "engine/features/plan.py", "import numba"),
    (dependencies_are_declared, "dataflows/cli.py", "import pandas as pd"),
    (dependencies_are_declared, "dataflows/cli.py", "from scipy.stats import norm"),
    (the_engine_is_pure, "engine/batch.py", "print(1)"),
    (the_engine_is_pure, "engine/batch.py", "open('x')"),
    (the_engine_is_pure, "engine/batch.py", "import os\nos.environ['X']"),
    (the_engine_is_pure, "engine/batch.py", "from os import environ"),
    (the_engine_is_pure, "engine/batch.py", "from time import time"),
    (the_engine_is_pure, "engine/batch.py", "import random\nrandom.Random(7)"),
    (the_engine_is_pure, "engine/batch.py", "from random import choice"),
    (the_engine_is_pure, "engine/batch.py", "from pathlib import Path"),
    (the_engine_is_pure, "engine/batch.py", "def f(np):\n    return np.random.default_rng()"),
    (the_engine_is_pure, "engine/batch.py", "import datetime\ndatetime.datetime.now()"),
    (the_engine_is_pure, "engine/batch.py", "from threading import Lock"),
    (kernels_stay_home, "engine/features/plan.py", "@kernel\ndef f(): pass"),
    (kernels_stay_home, "dataflows/live.py", "@numba.njit(cache=True)\ndef f(): pass"),
    (kernels_stay_home, "engine/kernels/sums.py", "@njit\ndef f(): pass"),
    (kernels_stay_home, "engine/kernels/sums.py", "def make():\n    @kernel\n    def f(): pass"),
]

ADMITTED = [
    ("engine/kernels/sums.py", "from thalweg.engine.kernels.jit import kernel\n@kernel\ndef f(): pass"),
    ("engine/features/plan.py", "from ..kernels import sums\nimport numpy as np\nimport datetime"),
    ("engine/learning/river.py", "from river import base"),
    ("engine/learning/identity.py", "import random\ndef f(x): return isinstance(x, random.Random)"),
    ("connectors/broker.py", "import os, subprocess, noida_db, confluent_kafka\nfrom thalweg.engine import batch"),
    ("dataflows/flights/__init__.py", "from river import compose\nfrom thalweg import Stream\nprint(1)"),
    ("dataflows/live.py", "from bytewax.dataflow import Dataflow\nfrom thalweg.connectors import journal"),
    ("src/thalweg/__init__.py", "from thalweg.dataflows.pipeline import pipeline\nfrom .engine import batch"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_source_file_keeps_the_rule(rule: Rule) -> None:
    found = [text for path in sources() for text in rule(path, ast.parse((ROOT / path).read_text(), path))]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(("rule", "path", "code"), REJECTED, ids=lambda part: getattr(part, "__name__", None))
def test_the_rule_rejects_what_it_must(rule: Rule, path: str, code: str) -> None:
    assert list(rule(path, ast.parse(code)))


@pytest.mark.parametrize(("path", "code"), ADMITTED, ids=[path for path, _ in ADMITTED])
def test_the_rules_admit_what_they_should(path: str, code: str) -> None:
    assert [text for rule in RULES for text in rule(path, ast.parse(code))] == []


def test_every_rule_has_a_sample() -> None:
    assert {rule for rule, _, _ in REJECTED} == set(RULES)
