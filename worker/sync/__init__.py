"""Reading alone: what is on the service, as a file of changes or beside what is wanted.

Begin with `asking.py`: one read under flow control and its gate; `reading.py` makes many. `listing.py` walks the list,
`pulling.py` writes what it finds for `metasync pull`; `target.py` is the file. `comparing.py` and `spool.py` are for
`metasync diff`: they fold changes by completion and say what differs.
"""
