"""``thalweg init``: a folder with a pipeline that runs and is tested."""

from __future__ import annotations

import json
import random
import re
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

from thalweg.engine.errors import ThalwegError

FILES = ("pipeline.py", "test_pipeline.py", "produce.py", "thalweg.toml", "README.md", "gitignore")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
_CARDS, _DAYS, _PAYMENTS_A_DAY = 40, 6, 3
_START = datetime(2026, 1, 5, tzinfo=UTC)


class InitError(ThalwegError, ValueError):
    """The name is no name for topics, or the folder is in the way."""


def init(name: str, folder: str | Path | None = None) -> Path:
    """Makes ``folder`` (default: ./name) and returns it.

    Raises:
        InitError: the name does not fit, or the folder holds something already.
    """
    if not _NAME.fullmatch(name):
        raise InitError(f"{name!r} names topics, so write a letter, then letters, digits, _ or -; for example: fraud")
    target = Path(folder or name)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InitError(f"{target} is there already and not empty; take another name, or --dir")
    templates = files("thalweg.dataflows") / "templates"
    (target / "data").mkdir(parents=True, exist_ok=True)
    for file in FILES:
        text = (templates / f"{file}.template").read_text(encoding="utf-8").replace("{{name}}", name)
        (target / file.replace("gitignore", ".gitignore")).write_text(text, encoding="utf-8")
    payments, reports = sample()
    _write(target / "data" / "payments.jsonl", payments)
    _write(target / "data" / "reports.jsonl", reports)
    return target


def sample(seed: int = 7) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Payments in order of time, and the reports of the frauds among them: bursts of large payments from abroad."""
    draw = random.Random(seed)
    made: list[tuple[datetime, str, float, str, bool]] = []
    for number in range(_CARDS):
        card, usual = f"card-{number:02d}", draw.uniform(10, 80)
        for _ in range(_DAYS * _PAYMENTS_A_DAY):
            at = _START + timedelta(seconds=draw.randrange(_DAYS * 86_400))
            country = "NL" if draw.random() < 0.9 else draw.choice(["DE", "FR"])
            made.append((at, card, draw.lognormvariate(0, 0.4) * usual, country, False))
        if number % 2 == 0:
            at = _START + timedelta(seconds=draw.randrange(86_400, _DAYS * 86_400))
            for _ in range(draw.randint(3, 6)):
                at += timedelta(seconds=draw.randrange(30, 600))
                country = draw.choice(["NL", "DE", "FR", "US"])
                made.append((at, card, draw.uniform(1.5, 6) * usual, country, True))
    made.sort()
    payments, reports = [], []
    for i, (at, card, amount, country, fraud) in enumerate(made):
        payment: dict[str, Any] = {"payment_id": f"p{i:04d}", "card": card, "at": _iso(at)}
        payments.append(payment | {"amount": round(amount, 2), "country": country})
        if fraud:
            known = at + timedelta(minutes=draw.randrange(20, 240))
            reports.append({"payment_id": f"p{i:04d}", "card": card, "reported_at": _iso(known), "fraud": True})
    reports.sort(key=lambda report: str(report["reported_at"]))
    return payments, reports


def _iso(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
