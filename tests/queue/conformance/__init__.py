"""The contract of a store: the suite that a new store has to pass.

To add a store:

1. Write a package beside ``worker/queue/sqlite``, with a class derived from `worker.queue.base.StoreBase` that
implements `worker.queue.store.Backend`. `worker.queue.rows` makes claims and statuses from rows,
`worker.queue.quota.grant` has the arithmetic of the common rate, and `worker.queue.history.every_minute` that of the
history. Add its URL to `worker.queue.opening`.
2. Register it in `tests.queue.conformance.backends.BACKENDS`, with a clock that the suite can move. If several
processes can share it, add its URL to `tests.queue.stores.STORES`, a network that swallows answers to
`test_lost_answers`, and a failover to `tests.queue.test_failover`.
3. Run ``.venv/bin/pytest -n auto tests/queue/conformance tests/queue/protocol -k NAME``, with the name that you
registered.

The suite compares each call with the contract, and any sequence of calls with a model (`test_model`). `test_race` runs
producers, consumers and crashes at once. `tests.queue.protocol` searches a smaller model completely, with failovers and
steps of the clock, and makes each store follow it. Tests of one store, of its files, servers, failures and plans, are
beside this folder. So are tests of durability: this suite ends no process and cuts no power.
"""
