"""Reading the service without changing it, for `metasync pull` and `metasync diff`.

Begin with `asking.py`: one read under flow control and its gate; `reading.py` runs many. `listing.py` walks the list,
`pulling.py` writes the completions that it finds, `target.py` is the file. `spool.py` groups changes by completion and
`comparing.py` compares them with the service, for `metasync diff`.
"""
