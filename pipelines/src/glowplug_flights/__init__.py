"""The flights workload: arrival delays of New York's flights of 2013, from raw CSV files to a registered model.

Steps as code, each a function that writes its outcome atomically: `dataset` (the files), `tables` (the offline feature
tables), `training` (the model), `demo` (all of them in a row, and real requests to try the model with).
"""
