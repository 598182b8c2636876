"""A census on real processes under faults: is anything lost, doubled, stale or back from the dead?

`python -m tools.census` runs it. The order of reading: `ledger` (what was written, so what may be found), `judging` (an
answer against it), `workload` (who writes and reads all the time), `nodes` (on what), `faults` (what happens to it),
`history` (what is kept of all that), `run` (from start to verdict), `report` (what came out).
"""
