"""Small checkpoints as torch writes them, for tests/convert/test_read.py, which states their values again.

    python tests/golden/checkpoints.py

Made with torch 2.13.0. The values need no random numbers, so every run gives the same tensors.
"""

from pathlib import Path

import torch

FOLDER = Path(__file__).with_suffix("")


def tensors() -> dict[str, torch.Tensor]:
    """One tensor of every kind that the reader knows."""
    base = torch.arange(12, dtype=torch.float32)
    return {
        "fp32": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "fp16": torch.tensor([0.5, -1.25, 65504.0], dtype=torch.float16),
        "bf16": torch.tensor([0.5, -1.25, 2.0**100], dtype=torch.bfloat16),
        "fp64": torch.tensor([[0.1, 1e30]], dtype=torch.float64),
        "transposed": torch.arange(12, dtype=torch.float32).reshape(3, 4).T,
        "stepped": torch.arange(20, dtype=torch.float32)[3:15:2],
        "shared.whole": base,
        "shared.rows": base.view(3, 4)[1:],
        "expanded": torch.tensor([3.0]).expand(4),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.tensor([1.0, 2.0])),
        "bn.num_batches_tracked": torch.tensor(7),
        "int8": torch.tensor([-128, 127], dtype=torch.int8),
        "uint8": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
    }


def main() -> None:
    """Write the files into the folder beside this script."""
    FOLDER.mkdir(exist_ok=True)
    torch.save(tensors(), FOLDER / "zip.pth")
    torch.save(tensors(), FOLDER / "legacy.pth", _use_new_zipfile_serialization=False)

    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    for parameter in net.parameters():
        torch.nn.init.constant_(parameter, 0.25)
    # A state_dict carries the attribute _metadata; DataParallel puts `module.` before every name.
    parallel = torch.nn.DataParallel(net)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1, momentum=0.9)
    parallel(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    for parameter in net.parameters():
        torch.nn.init.constant_(parameter, 0.25)
    net[1].reset_running_stats()
    torch.save(
        {"epoch": 3, "arch": "net", "state_dict": parallel.state_dict(), "optimizer": optimizer.state_dict()},
        FOLDER / "nested.pth",
    )
    torch.save(net, FOLDER / "module.pth")  # a whole module: not tensors alone


if __name__ == "__main__":
    main()
