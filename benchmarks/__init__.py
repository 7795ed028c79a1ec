"""Benchmarks: each measures one promise and its peers in one run, and writes what came out, whatever it is.

`python -m benchmarks` runs all, `python -m benchmarks NAME` one. Results go to `docs/benchmarks.json`, from which
`docs/benchmarks.md` and `docs/plots/` are drawn; `--out FOLDER` writes elsewhere. `serving` has `--quick` and
`--only xgboost|lookup|deep`. Load goes to 127.0.0.1 only and is bounded.
"""
