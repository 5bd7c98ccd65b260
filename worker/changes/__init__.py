"""The domain, pure: what a change is, how changes fold into one update, how files are read."""

from worker.changes.change import MODES, InvalidChange, MetadataChange, Mode

__all__ = ["MODES", "InvalidChange", "MetadataChange", "Mode"]
