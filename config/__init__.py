"""Settings and logs, for the command line only: the rest of the code gets plain values.

Begin with `settings.py`: every setting with its type, default and description, and `load`, which reads all sources.
`durations.py` parses `15m`, `urls.py` masks passwords in URLs, `kubelet.py` ignores variables that Kubernetes sets.
`logs.py` renders log lines, and `sink.py` writes them from a thread.
"""
