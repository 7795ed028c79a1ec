"""Stock kserve.ModelServer around a booster, computing as KServe's own xgbserver does: DMatrix on one thread, predict.

`--silent` turns its four log lines a request off; without it they come as they are.
"""

import logging
import os
import sys

import kserve
import xgboost
from kserve import logging as kserve_logging
from kserve.utils.utils import get_predict_input, get_predict_response


class Predictor(kserve.Model):
    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self._path = path

    def load(self) -> bool:
        self._booster = xgboost.Booster(params={"nthread": 1}, model_file=self._path)
        self.ready = True
        return True

    def predict(self, payload, headers=None):
        rows = xgboost.DMatrix(get_predict_input(payload), nthread=1)
        return get_predict_response(payload, self._booster.predict(rows), self.name)


if __name__ == "__main__":
    options, _ = kserve.model_server.parser.parse_known_args()
    if "--silent" in sys.argv:
        logging.disable(logging.CRITICAL)
    elif options.configure_logging:
        kserve_logging.configure_logging(options.log_config_file)
    model = Predictor(options.model_name, os.environ["MODEL_FILE"])
    model.load()
    kserve.ModelServer().start([model])
