"""Features: what a model is fed, the same in training and in serving.

A feature view (a YAML file) names entities, groups of features with their join keys, and what to do about a missing
or stale row. The offline store (DuckDB on Parquet) holds history and makes training sets; the online store (Redis)
holds the newest row of each key, and is what a request is answered from. Both paths end in the same pure function,
`resolve`, so that training and serving cannot drift apart.

Nothing is imported here: the serving path (`view`, `parse`, `keys`, `packing`, `resolve`, `online`) needs numpy and
redis only; DuckDB and pyarrow are imported by the `offline*` modules alone, so that a transformer's image does
without them.
"""
