"""Faults put in on purpose: what the tests are worth.

`list.yaml` holds faults of our own: each a line of SQL, Lua or Python, the promise that it breaks, and the tests that
have to notice. `make mutants` puts each into a copy of the project and runs those tests. Begin with `list.yaml`.

`make mutants-core` lets mutmut make up faults in what knows no store, socket or clock. `core.py` judges what no test
notices: `equivalent.yaml` has to name it, with the reason.
"""
