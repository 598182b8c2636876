"""A simulated cluster: the real roles on one seeded loop, over simulated time, network, storage and metadata service.

One integer decides everything that happens, so a failure is replayed by its seed. `world.py` assembles, `oracle.py` and
`answers.py` check, `mutants.py` proves that the checks would notice.
"""
