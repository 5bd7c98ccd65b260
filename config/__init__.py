"""Settings and logs, for the command line alone: the rest of the code gets plain values.

Begin with `settings.py`: every setting with its type, default and sentence, and `load`, which reads all sources.
`durations.py` reads `15m`, `urls.py` hides passwords of URLs, `kubelet.py` passes over what Kubernetes sets. `logs.py`
makes log lines, and `sink.py` writes them from a thread.
"""
