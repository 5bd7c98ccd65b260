"""What every store has to do: the suite that a new one has to pass.

To add a store:

1. Write a package beside ``worker/queue/sqlite``: a class that derives from `worker.queue.base.StoreBase` and fills in
   what `worker.queue.store.Backend` asks for. `worker.queue.rows` puts claims and statuses together from rows,
   `worker.queue.quota.grant` is the arithmetic of the common rate, `worker.queue.history.every_minute` that of the
   history. Give its URL to `worker.queue.opening`.
2. Register it: in `tests.queue.conformance.backends.BACKENDS`, opened with a clock that the suite can move; and, if
   several processes can share it, in `tests.queue.stores.STORES`, as a URL, in `test_lost_answers`, behind what
   swallows answers, and in `tests.queue.test_failover`.
3. Run ``.venv/bin/pytest -n auto tests/queue/conformance tests/queue/protocol -k NAME``, with the name that you
   registered.

The suite holds each call to the contract, any sequence of calls to a model (`test_model`), and producers, consumers and
crashes at once to the promises (`test_race`). `tests.queue.protocol` searches a smaller model whole, failovers and
clock steps included, and has every store do what it does. What is a store's own, its files, servers, failures and
plans, is tested beside this folder. So is what it makes durable: this suite ends no process and takes no power away.
"""
