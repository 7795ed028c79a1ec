"""Drift: whether what a model is asked, answers and gets wrong is still what it was trained on.

A profile of the training data (`profile`) says what is usual, its day-to-day variation included; rows that come are
counted on the profile's own cells (`grid`, `slots`), compared (`measures`, `nulls`, `judge`), and a pure decision with
hysteresis (`episodes`) makes one event an episode of it. The service around it (`service`, `store`) takes CloudEvents
and keeps what it acknowledged on disk.

Nothing is imported here: numpy is needed by what counts, HTTP by the service alone.
"""
