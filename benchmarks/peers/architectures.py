"""ResNet-50 and BERT-base in torch, by folder name: random weights from a seed, the same in every process."""

import os

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
)

SEED = 0
WEIGHTS = "weights.pt"
TOKENS = 128
LABELS = 1000


class ResNet50(torch.nn.Module):
    """pixel_values float32 [n, 3, 224, 224] -> logits float32 [n, 1000]."""

    inputs = (("pixel_values", np.float32, (1, 3, 224, 224)),)

    def __init__(self) -> None:
        super().__init__()
        # The configuration's defaults are ResNet-50: bottlenecks, depths 3 4 6 3.
        self.model = ResNetForImageClassification(ResNetConfig(num_labels=LABELS))

    def forward(self, pixel_values):
        return self.model(pixel_values).logits


class BertBase(torch.nn.Module):
    """input_ids, attention_mask int64 [n, 128] -> logits float32 [n, 2]."""

    inputs = (("input_ids", np.int64, (1, TOKENS)), ("attention_mask", np.int64, (1, TOKENS)))

    def __init__(self) -> None:
        super().__init__()
        # The defaults are BERT-base: 12 layers, 768 wide, 12 heads.
        self.model = BertForSequenceClassification(BertConfig(num_labels=2))

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


ARCHITECTURES = {"resnet50": ResNet50, "bert-base": BertBase}


def build(folder: str):
    """The model in evaluation mode. Its weights are those of the folder, if they are there, else new ones."""
    torch.manual_seed(SEED)
    model = ARCHITECTURES[os.path.basename(folder)]()
    weights = os.path.join(folder, WEIGHTS)
    if os.path.exists(weights):
        model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def named_inputs(model, arrays):
    """Tensors in the model's order from arrays by name."""
    return [torch.from_numpy(np.array(arrays[name])) for name, _, _ in model.inputs]


def split_inputs(model, content: bytes):
    """Tensors of one row from the inputs' bytes one after another."""
    tensors, offset = [], 0
    for _, dtype, shape in model.inputs:
        count = int(np.prod(shape))
        array = np.frombuffer(content, dtype=dtype, count=count, offset=offset).reshape(shape)
        tensors.append(torch.from_numpy(array.copy()))
        offset += array.nbytes
    return tensors
