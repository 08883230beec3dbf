"""Detectors that watch what was served, and the alarms they raise."""

from thalweg.engine.drift.detectors import Alarm, ErrorDetector, ErrorMonitor, on_error

__all__ = ["Alarm", "ErrorDetector", "ErrorMonitor", "on_error"]
