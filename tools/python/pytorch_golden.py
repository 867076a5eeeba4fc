"""What PyTorch says, for the tests of `ferrostem import`: needs torch and numpy.

    python tools/python/pytorch_golden.py src/networks/import/samples

Writes dcnn.json, the outputs of the DCNN on windows of an image, without padding and with. Weights and image are not stored:
`formula` makes them here as in the Rust test. And writes small files of torch.save, one of each form.
"""

import json
import pathlib
import sys

import numpy as np
import torch
from torch import nn

WINDOW, STRIDE, OUTPUTS, SHAPE = 30, 4, 7, (46, 42)


def formula(tensor, count):
    """Numbers in -1 .. 1, from the number of the tensor and of the value alone."""
    x = (np.arange(count, dtype=np.uint64) * 2654435761 + (tensor + 1) * 2246822519) % 2**32
    x ^= x >> np.uint64(15)
    x = x * np.uint64(2246822519) % 2**32
    x ^= x >> np.uint64(13)
    return x.astype(np.float64) / 2**31 - 1


def network(padded):
    p, n = (1, WINDOW // 2) if padded else (0, (WINDOW - 22) // 2)

    def conv(i, o):
        return [nn.Conv2d(i, o, 3, padding=p), nn.LeakyReLU(0.01)]

    return nn.Sequential(
        *conv(1, 32), *conv(32, 32), *conv(32, 32), *conv(32, 32), *conv(32, 32),  # 0, 2, 4, 6, 8
        *conv(32, 64), *conv(64, 64),                                              # 10, 12
        nn.MaxPool2d(2),                                                           # 14
        *conv(64, 128), *conv(128, 128),                                           # 15, 17
        nn.BatchNorm2d(128), nn.Dropout(0.2), nn.Flatten(),                        # 19, 20, 21
        nn.Linear(128 * n * n, OUTPUTS))                                           # 22


def fill(net):
    state = {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    for index, (name, value) in enumerate(state.items()):
        numbers = formula(index, value.numel())
        if value.dim() > 1:
            numbers *= (6 / np.prod(value.shape[1:])) ** 0.5
        else:
            numbers = 0.2 * numbers + (name in ("19.weight", "19.running_var"))
        value.copy_(torch.tensor(numbers.astype(np.float32)).reshape(value.shape))


def golden(padded):
    net = network(padded).eval()
    fill(net)
    image = formula(1000, SHAPE[0] * SHAPE[1]).astype(np.float32).reshape(SHAPE)
    windows = [
        image[row:row + WINDOW, col:col + WINDOW]
        for row in range(0, SHAPE[0] - WINDOW + 1, STRIDE)
        for col in range(0, SHAPE[1] - WINDOW + 1, STRIDE)
    ]
    with torch.no_grad():
        return net(torch.tensor(np.stack(windows))[:, None]).double().numpy().round(7).tolist()


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dcnn.json").write_text(json.dumps({"valid": golden(False), "same": golden(True)}) + "\n")
    weights = {
        "single": torch.tensor([[0.5, -1.25, 3.0], [4.0, 5.5, 1e-3]]),
        "transposed": torch.arange(6, dtype=torch.float64).reshape(2, 3).T,
        "part": torch.arange(8.0)[3:5],
        "half": torch.tensor([1.5, -2.0, 6e-8], dtype=torch.float16),
        "bfloat16": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "norm.num_batches_tracked": torch.tensor(7),
    }
    torch.save(weights, folder / "zip.pt")
    torch.save(weights, folder / "bare.pt", _use_new_zipfile_serialization=False)
    # As AtomAI saves a trained network: an optimizer beside the weights.
    net = nn.Conv2d(1, 2, 1)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 1, 1, 1)).sum().backward()
    optimizer.step()
    trained = {"model_type": "seg", "nb_classes": 3, "weights": net.state_dict(), "optimizer": optimizer}
    torch.save(trained, folder / "trained.tar")
    torch.save(trained, folder / "trained_bare.tar", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    torch.manual_seed(0)
    main(pathlib.Path(sys.argv[1]))
