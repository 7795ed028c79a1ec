"""Stock kserve.ModelServer around an eager torch model; the first output of the model is answered."""

import os

import kserve
import torch
from architectures import build, named_inputs
from kserve import logging as kserve_logging
from kserve.utils.utils import get_predict_response


class Predictor(kserve.Model):
    def __init__(self, name: str) -> None:
        super().__init__(name)

    def load(self) -> bool:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self._model = build(os.environ["MODEL_DIR"])
        self.ready = True
        return True

    def predict(self, payload, headers=None):
        arrays = {each.name: each.as_numpy() for each in payload.inputs}
        with torch.inference_mode():
            logits = self._model(*named_inputs(self._model, arrays))
        return get_predict_response(payload, logits.numpy(), self.name)


if __name__ == "__main__":
    options, _ = kserve.model_server.parser.parse_known_args()
    kserve_logging.configure_logging(options.log_config_file)
    model = Predictor(options.model_name)
    model.load()
    kserve.ModelServer().start([model])
